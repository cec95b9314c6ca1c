import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.OptionalLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Whether this pod leads, and with which fencing token. It reads status.json without a library: that is one line, with the role first, and
 * without white space between the fields. With a library, look at the same fields.
 */
final class Claim {
    private static final int MOST = 65536;
    private static final Pattern TOKEN = number("fencingToken");
    private static final Pattern END = number("validUntilBoottime");

    private Claim() {}

    /** The token of this pod's claim, or nothing when it does not lead. What cannot be understood is no leadership. */
    static OptionalLong token() {
        String directory = System.getenv().getOrDefault("ELECTOR_STATUS_DIR", "/var/run/elector");
        return token(Path.of(directory, "status.json"));
    }

    static OptionalLong token(Path file) {
        try {
            String status = read(file);
            if (!status.startsWith("{\"role\":\"leader\",") || !status.stripTrailing().endsWith("}")) {
                return OptionalLong.empty();
            }
            if (!status.contains("\"mode\":\"leader-for-life\"") && boottime() >= find(END, status)) {
                return OptionalLong.empty();
            }
            long token = find(TOKEN, status);
            return token > 0 ? OptionalLong.of(token) : OptionalLong.empty();
        } catch (IOException | RuntimeException e) {
            return OptionalLong.empty();
        }
    }

    private static String read(Path file) throws IOException {
        try (InputStream in = Files.newInputStream(file)) {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(in.readNBytes(MOST))).toString();
        }
    }

    /** The clock of validUntilBoottime, rounded up. lxcfs shows another one than the machine's. */
    private static long boottime() throws IOException {
        if (Files.readString(Path.of("/proc/self/mounts")).contains(" /proc/uptime ")) {
            throw new IOException("no such clock");
        }
        String seconds = Files.readString(Path.of("/proc/uptime")).split(" ")[0];
        return Math.round(Double.parseDouble(seconds) * 1000) + 10;
    }

    private static Pattern number(String field) {
        return Pattern.compile("\"" + field + "\":([0-9]{1,18})[,}]");
    }

    /** The field's number, or 0. */
    private static long find(Pattern field, String status) {
        Matcher found = field.matcher(status);
        return found.find() ? Long.parseLong(found.group(1)) : 0;
    }
}
