import java.net.URI;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.azurebfs.SecureAzureBlobFileSystem;

/** Opens a folder in Azure Storage with the Hadoop that Flink's plugin has, as that plugin does: with
 * Flink's keys of `fs.azure.`, `KEY=VALUE` each. Then says what they are for Hadoop. */
class Checkpoints {
    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        for (int n = 1; n < arguments.length; n++) {
            String[] pair = arguments[n].split("=", 2);
            configuration.set(pair[0], pair[1]);
        }
        try (SecureAzureBlobFileSystem opened = new SecureAzureBlobFileSystem()) {
            opened.initialize(URI.create(arguments[0]), configuration);
            for (int n = 1; n < arguments.length; n++) {
                String key = arguments[n].split("=", 2)[0];
                System.out.println(key + "=" + opened.getConf().get(key));
            }
        }
    }
}
