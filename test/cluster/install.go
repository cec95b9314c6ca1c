package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/elector-io/elector/test/cluster/internal/toolchain"
)

// The names under which elector is installed.
const (
	releaseName      = "elector"
	releaseNamespace = "elector-system"
)

// servicePort is what the chart's Service gets instead of 443: the service proxy may only listen above 1023 without root.
const servicePort = "8443"

// installTimeout bounds helm's wait for the manager's pods.
const installTimeout = "90s"

// installElector does what a user would do: helm install, with the chart and values given.
func (c *cluster) installElector(ctx context.Context) error {
	helm, err := toolchain.Path(c.bin, "helm")
	if err != nil {
		return err
	}
	// helm needs a kubeconfig before DIR/kubeconfig may say that all is ready.
	kubeconfig := filepath.Join(c.dir, "pki", "admin.kubeconfig")
	if err := c.plane.WriteKubeconfig(kubeconfig, "admin"); err != nil {
		return err
	}
	args := []string{"install", releaseName, c.cfg.chart, "--namespace", releaseNamespace, "--create-namespace",
		"--wait", "--timeout", installTimeout, "--set", "service.port=" + servicePort}
	for _, v := range c.cfg.set {
		args = append(args, "--set", v)
	}
	home := filepath.Join(c.dir, helmDir)
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, helm, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("helm install: %w\n%s", err, output.String()), c.describePods(ctx, kubeconfig))
	}
	return nil
}

// describePods says what is wrong with the pods that did not get ready.
func (c *cluster) describePods(ctx context.Context, kubeconfig string) error {
	kubectl, err := toolchain.Path(c.bin, "kubectl")
	if err != nil || ctx.Err() != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig", kubeconfig, "-n", releaseNamespace, "get", "pods,events", "-o", "wide")
	output, _ := cmd.CombinedOutput()
	return errors.New(string(output))
}
