// Command image makes a container image of static programs, for several architectures, without a registry, an engine or a base image.
//
//	image -o elector.tar -name REGISTRY/elector:TAG -created SECONDS -label KEY=VALUE amd64=PATH,PATH arm64=PATH,PATH
//
// The first program of an architecture is the image's entrypoint, the others lie beside it. The file is an OCI image layout in a tar archive. `docker load`, `ctr images import` and `skopeo copy oci-archive:` read it;
// docker load takes the first architecture named.
//
// The same programs, names, labels and time make the same bytes, as long as the same version of Go does the compressing. The image
// holds the programs, in a directory that only root may write to, and runs the first as a user that owns nothing.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	img := image{labels: map[string]string{}}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	file := flags.String("o", "", "the archive to write")
	flags.StringVar(&img.name, "name", "", "reference of the image, with a tag")
	flags.Func("created", "when it was made, in seconds since 1970: the commit's time, not the clock's", func(s string) error {
		seconds, err := strconv.ParseInt(s, 10, 64)
		img.created = time.Unix(seconds, 0).UTC()
		return err
	})
	flags.Func("label", "KEY=VALUE, as often as needed", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("KEY=VALUE expected")
		}
		img.labels[key] = value
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *file == "" || !strings.Contains(filepath.Base(img.name), ":") || flags.NArg() == 0 {
		return errors.New("-o FILE, -name NAME:TAG and at least one ARCHITECTURE=PATH[,PATH...] are needed")
	}
	for _, arg := range flags.Args() {
		arch, path, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not ARCHITECTURE=PATH[,PATH...]", arg)
		}
		p := programs{arch: arch}
		for path := range strings.SplitSeq(path, ",") {
			content, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read the program: %w", err)
			}
			p.programs = append(p.programs, program{name: filepath.Base(path), content: content})
		}
		img.platforms = append(img.platforms, p)
	}
	built, err := build(img)
	if err != nil {
		return err
	}
	if err := write(*file, built.files); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s  %s\n", img.name, built.digest)
	for _, p := range img.platforms {
		fmt.Fprintf(out, "  %-6s %s  %.1f MB compressed\n", p.arch, built.manifests[p.arch], float64(built.sizes[p.arch])/1e6)
	}
	return nil
}

// write makes the archive appear complete or not at all.
func write(file string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("create the archive's directory: %w", err)
	}
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file))
	if err != nil {
		return fmt.Errorf("create the archive: %w", err)
	}
	defer func() { _ = os.Remove(next.Name()) }() // renamed, or of no use
	err = archive(next, files)
	if err := errors.Join(err, next.Chmod(0o644), next.Close()); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	if err := os.Rename(next.Name(), file); err != nil {
		return fmt.Errorf("put the archive in place: %w", err)
	}
	return nil
}
