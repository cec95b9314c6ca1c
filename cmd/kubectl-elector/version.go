package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersion(p *plugin) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long: `Print the version of this program, and the image of the sidecar that "inject" puts into
manifests. What runs in the cluster is told by "check".`,
		Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			image := sidecarImage(version)
			if image == "" {
				image = "none, this is no release"
			}
			fmt.Fprintf(p.Out, "kubectl-elector %s (%s, %s/%s)\nsidecar: %s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, image)
		},
	}
}
