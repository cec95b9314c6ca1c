import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.OptionalLong;

/** Writes a line to PostgreSQL every second while this pod leads. A late writer, whose claim is over, is refused. */
public final class Fenced {
    private static final String WRITER = System.getenv().getOrDefault("POD_NAME", "java");

    private Fenced() {}

    public static void main(String[] args) throws InterruptedException {
        for (OptionalLong was = null; ; Thread.sleep(1000)) {
            OptionalLong claim = Claim.token();
            if (!claim.equals(was)) {
                System.out.println(claim.isPresent() ? "leading with token " + claim.getAsLong() : "standing by");
            }
            was = claim;
            if (claim.isEmpty()) {
                continue;
            }
            long token = claim.getAsLong();
            try {
                System.out.println(write(token)
                        ? "wrote with token " + token
                        : "refused: a later leader than that of token " + token + " has written");
            } catch (SQLException e) {
                System.out.println("not written: " + e.getMessage());
            }
        }
    }

    /** Returns false if a later leader has written. */
    private static boolean write(long token) throws SQLException {
        try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            connection.setAutoCommit(false);
            // First the fence, which stays locked until the commit: a later leader's write came before, or comes after.
            try (PreparedStatement fence = connection.prepareStatement(
                    "UPDATE fence SET token = ? WHERE name = 'report' AND token <= ?")) {
                fence.setLong(1, token);
                fence.setLong(2, token);
                if (fence.executeUpdate() == 0) {
                    connection.rollback();
                    return false;
                }
            }
            try (PreparedStatement line = connection.prepareStatement("INSERT INTO report (token, writer) VALUES (?, ?)")) {
                line.setLong(1, token);
                line.setString(2, WRITER);
                line.executeUpdate();
            }
            connection.commit();
            return true;
        }
    }
}
