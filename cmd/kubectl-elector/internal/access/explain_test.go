package access_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
)

// TestExplain has an API server of a few words.
func TestExplain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		reason  string
		code    int
		allowed string
		want    string
		denied  bool
	}{
		"no right": {
			"the command that grants it", http.StatusForbidden, "false",
			`you may not list pods in namespace "shop"; somebody who can grant it does so with: kubectl -n shop create role elector-list-pods-alice --verb=list --resource=pods && kubectl -n shop create rolebinding elector-list-pods-alice --role=elector-list-pods-alice --user=alice`,
			true,
		},
		"a policy":   {"a grant would not help", http.StatusForbidden, "true", `asking the API server to list pods in namespace "shop": the server's words`, false},
		"logged out": {"", http.StatusUnauthorized, "false", "does not accept your credentials: log in again, or choose another context with --context", false},
		"overloaded": {"", http.StatusInternalServerError, "false", `asking the API server to list pods in namespace "shop": `, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case strings.HasSuffix(r.URL.Path, "/selfsubjectreviews"):
					_, _ = w.Write([]byte(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","status":{"userInfo":{"username":"alice"}}}`))
				case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
					_, _ = w.Write([]byte(`{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":` + test.allowed + `}}`))
				default:
					reason := map[int]string{http.StatusForbidden: "Forbidden", http.StatusUnauthorized: "Unauthorized", http.StatusInternalServerError: "InternalError"}[test.code]
					w.WriteHeader(test.code)
					_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server's words","reason":"` + reason + `"}`))
				}
			}))
			defer server.Close()
			api := connect(t, server.URL)
			_, err := api.Client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
			err = api.Explain(t.Context(), err, access.Right{Verb: "list", Resource: "pods", Namespace: "shop"})
			if err == nil || !strings.Contains(err.Error(), test.want) || access.IsDenied(err) != test.denied {
				t.Errorf("%v, want %s: %s", err, test.want, test.reason)
			}
		})
	}
}

func connect(t *testing.T, url string) *access.API {
	t.Helper()
	flags := genericclioptions.NewConfigFlags(true)
	flags.APIServer = &url
	api, err := access.Connect(flags)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	api := connect(t, server.URL)
	_, err := api.Client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
	err = api.Explain(t.Context(), err, access.Right{Verb: "list", Resource: "pods", Namespace: "shop"})
	if err == nil || !strings.HasPrefix(err.Error(), "the API server at "+server.URL+" cannot be reached, look at the kubeconfig's context") || strings.Contains(err.Error(), "Get ") {
		t.Error(err)
	}
	if err := api.Explain(t.Context(), context.Canceled, access.Right{}); err == nil || err.Error() != "interrupted" || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := api.Explain(t.Context(), nil, access.Right{}); err != nil {
		t.Error(err)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		right      access.Right
		user, want string
	}{
		"all namespaces": {access.Right{Verb: "list", Resource: "pods", Namespace: access.AllNamespaces}, "bob", "kubectl create clusterrole elector-list-pods-bob --verb=list --resource=pods && kubectl create clusterrolebinding elector-list-pods-bob --clusterrole=elector-list-pods-bob --user=bob"},
		"odd name": {
			access.Right{Verb: "get", Resource: "pods", Namespace: "shop"}, "a'; rm -r /%",
			`kubectl -n shop create role 'elector-get-pods-a'\''; rm -r --' --verb=get --resource=pods && kubectl -n shop create rolebinding 'elector-get-pods-a'\''; rm -r --' --role='elector-get-pods-a'\''; rm -r --' --user='a'\''; rm -r /%'`,
		},
		"one object": {
			access.Right{Verb: "patch", Group: "coordination.k8s.io", Resource: "leases", Namespace: "shop", Name: "web"}, "system:serviceaccount:shop:bot",
			"kubectl -n shop create role elector-patch-leases-web-shop:bot --verb=patch --resource=leases.coordination.k8s.io --resource-name=web && " +
				"kubectl -n shop create rolebinding elector-patch-leases-web-shop:bot --role=elector-patch-leases-web-shop:bot --serviceaccount=shop:bot",
		},
	} {
		if got := test.right.Command(test.user); got != test.want {
			t.Errorf("%s\n%s\nwant\n%s", name, got, test.want)
		}
	}
}
