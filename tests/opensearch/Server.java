import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.index.mapper.MapperExtrasPlugin;
import org.opensearch.ingest.common.IngestCommonPlugin;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/**
 * One OpenSearch node, its modules on the class path: what loads them from a folder, as the
 * distribution does, is not on Maven Central. Its bootstrap is left out, and with it the security
 * manager and the refusal to run as root. Arguments: settings, name=value.
 */
class Server extends Node {
    private Server(Environment environment) {
        super(
            environment,
            List.of(
                Netty4Plugin.class,
                MapperExtrasPlugin.class,
                IngestCommonPlugin.class),
            true);
    }

    public static void main(String[] settings) throws Exception {
        Settings.Builder given = Settings.builder();
        for (String setting : settings) {
            String[] parts = setting.split("=", 2);
            given.put(parts[0], parts[1]);
        }
        LogConfigurator.configureWithoutConfig(given.build());
        new Server(new Environment(given.build(), (Path) null)).start();
        new CountDownLatch(1).await();
    }
}
