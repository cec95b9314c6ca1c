// Package access reaches the API server with what the user has, kubeconfig and
// rights, and says in a sentence what is missing of either.
package access

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// API is the API server as the user reaches it.
type API struct {
	// Client and Metadata ask for whole objects, and for their metadata alone.
	Client   kubernetes.Interface
	Metadata metadata.Interface
	// Namespace is that of the flag --namespace, else of the kubeconfig's context.
	Namespace string

	host  string
	ahead atomic.Int64 // of this machine's clock before the API server's, in nanoseconds
}

// requestTimeout is how long one answer may take if --request-timeout says nothing.
const requestTimeout = 20 * time.Second

// Connect makes an API of kubectl's flags. It asks the API server nothing yet.
func Connect(flags *genericclioptions.ConfigFlags) (*API, error) {
	namespace, _, err := flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	api := &API{Namespace: namespace, host: config.Host}
	if config.Timeout == 0 {
		config.Timeout = requestTimeout
	}
	config.QPS = -1 // one person's command; the API server has its own limits
	config.UserAgent = "kubectl-elector"
	config.WarningHandler = rest.NoWarnings{} // what this reads and tries out is nobody's mistake
	config.Wrap(api.readClock)
	if api.Client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("using the kubeconfig: %w", err)
	}
	if api.Metadata, err = metadata.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("using the kubeconfig: %w", err)
	}
	return api, nil
}

// Now is the API server's time, to the second, as of its last answer. Locks say
// since when they are held by other machines' clocks, which are nearer to it than
// the user's own.
func (a *API) Now() time.Time { return time.Now().Add(-time.Duration(a.ahead.Load())) }

// Ahead is how far the user's clock is before the API server's.
func (a *API) Ahead() time.Duration { return time.Duration(a.ahead.Load()) }

// readClock notes the time in answers.
func (a *API) readClock(next http.RoundTripper) http.RoundTripper { return &clockReader{next, a} }

type clockReader struct {
	next http.RoundTripper
	api  *API
}

func (c *clockReader) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		ahead := time.Since(date)
		if ahead > -time.Second && ahead < 2*time.Second {
			ahead = 0 // the header has whole seconds, and was on its way
		}
		c.api.ahead.Store(int64(ahead))
	}
	return response, nil
}

// WrappedRoundTripper is how client-go cancels a request whose time is up: without
// it, it logs that it cannot.
func (c *clockReader) WrappedRoundTripper() http.RoundTripper { return c.next }

// User is what the API server calls the user, empty if it does not say.
func (a *API) User(ctx context.Context) string {
	review, err := a.Client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return ""
	}
	return review.Status.UserInfo.Username
}
