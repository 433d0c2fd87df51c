"""The same graph on a cluster: streaming on Flink, bounded on Spark.

Source: Apache Beam's portability framework: job server, worker pool (`EXTERNAL` environment).
"""
