// Writes files in the layout of Event Hubs Capture: every codec, small and large blocks, and what
// Avro leaves to its writers. `java -cp 'lib/*' Write.java folder schema...`: a schema's name is
// its file's; each file is <schema>.<codec>.<interval>.avro.

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.file.CodecFactory;
import org.apache.avro.file.DataFileWriter;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.EncoderFactory;

public class Write {
    static final int ROWS = 60;

    public static void main(String[] args) throws Exception {
        for (int n = 1; n < args.length; n++) {
            Schema schema = new Schema.Parser().parse(new File(args[n]));
            String name = new File(args[n]).getName().replace(".avsc", "");
            for (String codec : new String[] {"null", "deflate", "snappy", "bzip2", "xz", "zstandard"})
                for (int interval : new int[] {32, 16000})
                    write(new File(args[0], name + "." + codec + "." + interval + ".avro"), schema,
                          codec, interval, false);
            write(new File(args[0], name + ".null.blocking.avro"), schema, "null", 16000, true);
        }
    }

    static void write(File file, Schema schema, String codec, int interval, boolean blocking)
            throws Exception {
        try (DataFileWriter<GenericRecord> out =
                new DataFileWriter<>(new GenericDatumWriter<GenericRecord>(schema))) {
            out.setCodec(CodecFactory.fromString(codec)).setSyncInterval(interval);
            if (blocking) // maps in blocks, each with its length
                out.setEncoder(to -> new EncoderFactory().configureBlockSize(64)
                    .blockingBinaryEncoder(to, null));
            out.setMeta("by", "Java").create(schema, file);
            for (int n = 0; n < ROWS / 2; n++) out.append(row(schema, n));
        }
        try (DataFileWriter<GenericRecord> more =
                new DataFileWriter<>(new GenericDatumWriter<GenericRecord>(schema))) {
            more.appendTo(file);
            for (int n = ROWS / 2; n < ROWS; n++) {
                more.append(row(schema, n));
                if (n % 10 == 0) more.sync();
            }
        }
    }

    static GenericRecord row(Schema schema, int n) {
        GenericRecord row = new GenericData.Record(schema);
        Map<String, Object> properties = new HashMap<>();
        properties.put("long", (long) n);
        properties.put("double", n / 3.0);
        properties.put("text", "t".repeat(n));
        properties.put("bytes", bytes("b".repeat(n % 3)));
        for (Schema.Field field : schema.getFields()) {
            Object value = switch (field.name()) {
                case "SequenceNumber" -> (long) (1000 + n);
                case "Offset" -> String.valueOf(4096L * n);
                case "EnqueuedTimeUtc" -> String.format("6/12/2020 6:32:%02d PM", n);
                case "SystemProperties" -> n % 2 == 0 ? Map.of() : properties;
                case "Properties" -> n % 3 == 0 ? properties : Map.of();
                case "Body" -> n % 7 == 6 ? null : bytes("{\"n\":" + n + ",\"é\":\"" + "x".repeat(40 * n) + "\"}");
                default -> null;
            };
            row.put(field.pos(), value);
        }
        return row;
    }

    static ByteBuffer bytes(String text) {
        return ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
    }
}
