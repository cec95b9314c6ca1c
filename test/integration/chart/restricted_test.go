//go:build integration

package chart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Installed with everything off that can be off: in a namespace of Pod Security's level restricted, with a certificate of the user's
// own, one replica and no leader-for-life. It works, and may do less.
func TestRestricted(t *testing.T) {
	t.Parallel()
	const strict = "strict"
	newNamespace(t, strict, restricted)
	ca, secret := certificate(t, "strict-webhook.strict.svc")
	secret.Name = "own"
	if _, err := cluster.Client().CoreV1().Secrets(strict).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	out := helm(t, "install", strict, cluster.Chart(), "--namespace", strict, "--wait", "--timeout", "60s",
		"--set", "service.port=8443,drain=1s,replicas=1,leaderForLife.enabled=false,certificate.mode=secret,certificate.secretName=own",
		"--set-file", "certificate.caBundle="+ca, "--set", "webhook.namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name="+strict)
	for _, want := range []string{"kubectl annotate deployment NAME elector.io/enabled=true", "helm test strict --namespace strict", "There is one replica", "You keep the certificate"} {
		if !strings.Contains(out, want) {
			t.Errorf("the notes do not say %q:\n%s", want, out)
		}
	}
	helm(t, "test", strict, "--namespace", strict, "--timeout", "60s")

	account := "system:serviceaccount:strict:strict-webhook"
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
		for _, resource := range []string{"configmaps", "secrets"} {
			out, err := cluster.Kubectl(t.Context(), "auth", "can-i", verb, resource, "--all-namespaces", "--as", account).CombinedOutput()
			if err == nil || strings.TrimSpace(string(out)) != "no" {
				t.Errorf("the manager may %s %s: %s", verb, resource, out)
			}
		}
	}
	asks := func(mode string) error {
		_, err := cluster.Client().CoreV1().Pods(strict).Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: mode, Annotations: map[string]string{"elector.io/enabled": "true", "elector.io/mode": mode}},
			Spec: corev1.PodSpec{
				SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
				Containers: []corev1.Container{{Name: "app", Image: "app", SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				}}},
			},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := asks("lease"); err != nil {
		t.Error(err)
	}
	if err := asks("leader-for-life"); err == nil || !strings.Contains(err.Error(), "elector.io/mode") {
		t.Errorf("a pod that asks for leader-for-life: %v", err)
	}
	helm(t, "uninstall", strict, "--namespace", strict)
}

// certificate returns a file with a CA, and a Secret with a certificate that it signed.
func certificate(t *testing.T, name string) (ca string, secret *corev1.Secret) {
	t.Helper()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	caKey, leafKey := key(), key()
	authority, leaf := template(1, "own CA"), template(2, name)
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf.DNSNames, leaf.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, sign(authority, authority, &caKey.PublicKey, caKey), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca, &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       sign(leaf, authority, &leafKey.PublicKey, caKey),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}}
}
