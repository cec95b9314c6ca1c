package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/entrypoint"
	"github.com/elector-io/elector/inject"
)

// registryPatience is how long a registry may take to answer, logging in included.
const registryPatience = time.Minute

func newEntrypoint(p *plugin) *cobra.Command {
	var container, archive, platform string
	c := &cobra.Command{
		Use:   "entrypoint IMAGE [flags]",
		Short: "Print what an image runs, as an annotation",
		Long: `Print what an image runs, as the annotation elector.io/command.

The gate starts the program of a container when its pod leads, so it has to know
the program. Where the pod says a command, that is it; where it does not, it is the
ENTRYPOINT and the CMD of the image, which only the image's registry knows. The
webhook asks no registry. This asks it once, as you, with the credentials of "docker
login", and prints the line to put under the annotations of the workload. Print it anew
when another version of the image runs something else.

Where the pod says args, but no command, write these in the place of the CMD.`,
		Example: `  # The line for a container "redis"
  kubectl elector entrypoint redis:8 --container redis

  # Of an image that is in no registry
  docker save app:v1 -o app.tar && kubectl elector entrypoint app:v1 --archive app.tar`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 && (archive == "" || len(args) > 1) {
				return usagef("%d arguments are not allowed: name one image, as in %s redis:8", len(args), c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if problems := validation.IsDNS1123Label(container); len(problems) > 0 {
				return usagef("--container %q is not allowed: use the name of a container of the pod", container)
			}
			on, err := entrypoint.ParsePlatform(platform)
			if err != nil {
				return usagef("--platform: %w", err)
			}
			reference := strings.Join(args, "")
			var command []string
			if archive != "" {
				command, err = entrypoint.OfArchive(archive, reference)
			} else {
				ctx, cancel := context.WithTimeout(c.Context(), registryPatience)
				defer cancel()
				command, err = entrypoint.OfReference(ctx, reference, on)
			}
			if err != nil {
				return err
			}
			line, err := commandLine(container, command)
			if err != nil {
				return err
			}
			fmt.Fprintln(p.Out, line)
			return nil
		},
	}
	c.Flags().StringVarP(&container, "container", "c", "app", "the container's name in the pod")
	c.Flags().StringVar(&archive, "archive", "", "read a file of \"docker save\" and ask no registry")
	c.Flags().StringVar(&platform, "platform", "linux/amd64", "which of the image's platforms to look at")
	return c
}

// maxCommand is the length of the annotation's value: that of any of elector's.
const maxCommand = 4 << 10

// commandLine is the annotation as a line of YAML. Whoever made the image chose the
// words: what cannot be printed is escaped, and nothing ends the quotes.
func commandLine(container string, command []string) (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string][]string{container: command}); err != nil {
		return "", fmt.Errorf("writing the command: %w", err)
	}
	var value strings.Builder
	for _, r := range strings.TrimSpace(b.String()) {
		switch {
		case r == '\'':
			value.WriteString("''")
		case strconv.IsPrint(r):
			value.WriteRune(r)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&value, `\u%04x`, unit)
			}
		}
	}
	if value.Len() > maxCommand {
		return "", fmt.Errorf("the image's command has %d bytes, and an annotation of elector has at most %d: give the container a command", value.Len(), maxCommand)
	}
	return inject.Prefix + "command: '" + value.String() + "'", nil
}
