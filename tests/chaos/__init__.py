"""The fault campaign: seeded plans of faults against real processes, judged by the receivers.

    python -m tests.chaos --kind kill --seed 1 --plans 20

`plan` says what goes wrong, and when; `traffic` publishes alerts, each with an id of its own;
`ground` is the site: hub, receivers, settings; `victim` is the pipeline's process, and what is
done to it from inside; `power` undoes what was not fsynced; `play` plays a plan; `judge` compares
what the receivers have with what was published, and with the account.
"""
