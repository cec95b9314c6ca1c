package snippets

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/elector-io/elector/test/embedded"
)

// readers are those of examples/fencing, which are not the README's functions: command makes a program that answers as the snippets do.
var readers = map[string]struct {
	needs   string
	command func(t *testing.T, examples string) []string
}{
	"go": {"go", func(t *testing.T, examples string) []string {
		t.Helper()
		answer := writeFile(t, t.TempDir(), "answer.go", `package main

import (
	"fmt"
	"os"

	"github.com/elector-io/elector/examples/fencing/go/claim"
)

func main() {
	for _, directory := range os.Args[1:] {
		_, leads := claim.TokenIn(directory + "/status.json")
		fmt.Println(directory, leads)
	}
}
`)
		return []string{buildIn(t, filepath.Join(examples, "go"), answer)} // a module of its own
	}},
	"python": {"python3", func(t *testing.T, examples string) []string {
		t.Helper()
		return []string{"python3", "-B", writeFile(t, t.TempDir(), "answer.py", `import sys
sys.path.insert(0, "`+filepath.Join(examples, "python")+`")
import claim
for directory in sys.argv[1:]:
    print(directory, str(claim.token(directory + "/status.json") is not None).lower())
`)}
	}},
	"node": {"node", func(t *testing.T, examples string) []string {
		t.Helper()
		return []string{"node", writeFile(t, t.TempDir(), "answer.js", `const claim = require("`+filepath.Join(examples, "node", "claim.js")+`");
for (const directory of process.argv.slice(2)) console.log(directory, claim.token(directory + "/status.json") !== null);
`)}
	}},
	"java": {"javac", func(t *testing.T, examples string) []string {
		t.Helper()
		dir := t.TempDir()
		answer := writeFile(t, dir, "Answer.java", `class Answer {
	public static void main(String[] directories) {
		for (String d : directories) System.out.println(d + " " + Claim.token(java.nio.file.Path.of(d, "status.json")).isPresent());
	}
}
`)
		if out, err := exec.CommandContext(t.Context(), "javac", "-d", dir, answer, filepath.Join(examples, "java", "Claim.java")).CombinedOutput(); err != nil {
			t.Fatalf("compiling Java: %v\n%s", err, out)
		}
		return []string{"java", "-cp", dir, "Answer"}
	}},
}

// The examples' readers answer with a token, so one that cannot be read is no leadership, either.
func TestReaders(t *testing.T) {
	t.Parallel()
	root, err := embedded.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := cases(t)
	token := regexp.MustCompile(`("fencingToken":)\d+`)
	for name, value := range map[string]string{
		"of text": `"7"`, "zero": "0", "negative": "-7", "broken": "7.5", "true": "true", "null": "null", "huge": "99999999999999999999999",
	} {
		all["token "+name] = testCase{"it is no token", token.ReplaceAllString(all["leader"].file, "${1}"+value), false}
	}
	for name, reader := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(reader.needs); err != nil {
				if name == "python" && os.Getenv("CI") == "true" {
					t.Fatal("not tested with it:", err)
				}
				t.Skip("not tested with it:", err)
			}
			answers(t, reader.command(t, filepath.Join(root, "examples", "fencing")), maps.Clone(all))
		})
	}
}
