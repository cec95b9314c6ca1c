package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Right is what one request takes.
type Right struct {
	Verb, Group, Resource, Namespace, Name string
}

// object is what the right is about, as a rule of a Role calls it.
func (r Right) object() string {
	if r.Group == "" {
		return r.Resource
	}
	return r.Resource + "." + r.Group
}

// String says what one may do, as `kubectl auth can-i` asks.
func (r Right) String() string {
	s := r.Verb + " " + r.object()
	if r.Name != "" {
		s += fmt.Sprintf(" %q", r.Name)
	}
	switch r.Namespace {
	case "":
	case AllNamespaces:
		s += " in all namespaces"
	default:
		s += fmt.Sprintf(" in namespace %q", r.Namespace)
	}
	return s
}

// AllNamespaces is the Namespace of a Right that is needed in all.
const AllNamespaces = "*"

// Scope is the Namespace of a Right to lists of a namespace, or of all where it is
// empty, as clients say it.
func Scope(namespace string) string { return cmp.Or(namespace, AllNamespaces) }

// Command is what somebody may type who can grant the right to a user.
func (r Right) Command(user string) string {
	kind, scope := "role", "-n "+r.Namespace+" "
	if r.Namespace == "" || r.Namespace == AllNamespaces {
		kind, scope = "clusterrole", ""
	}
	name := ""
	if r.Name != "" {
		name = " --resource-name=" + r.Name
	}
	flag := "--user="
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		flag, user = "--serviceaccount=", account
	}
	called, subject := quoted(r.called(user)), flag+quoted(user)
	return fmt.Sprintf("kubectl %[1]screate %[2]s %[3]s --verb=%[4]s --resource=%[5]s%[6]s && kubectl %[1]screate %[2]sbinding %[3]s --%[2]s=%[3]s %[7]s",
		scope, kind, called, r.Verb, r.object(), name, subject)
}

// called is a name for the Role, which others may have of other objects and users. A
// name is all but what would be part of a path.
func (r Right) called(user string) string {
	name := "elector-" + r.Verb + "-" + r.Resource
	if r.Name != "" {
		name += "-" + r.Name
	}
	return strings.NewReplacer("/", "-", "%", "-").Replace(name + "-" + user)
}

// quoted is a word as a shell takes it: names of users come from elsewhere.
func quoted(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("@:._-+/", r)
	}
	if strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// DeniedError says that the user has not got a right.
type DeniedError struct {
	Right Right
	// User is what the API server calls the user.
	User string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("you may not %s; somebody who can grant it does so with: %s", e.Right, e.Right.Command(cmp.Or(e.User, "USER")))
}

// Explain makes a sentence for people of an error that a request ended with which
// took the given right.
func (a *API) Explain(ctx context.Context, err error, right Right) error {
	if err == nil {
		return nil
	}
	var network *net.OpError
	var timeout net.Error
	var request *url.Error
	switch {
	case apierrors.IsForbidden(err) && !a.may(ctx, right): // else a policy forbids it, and says why
		return &DeniedError{Right: right, User: a.User(ctx)}
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server at %s does not accept your credentials: log in again, or choose another context with --context (%w)", a.host, err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.As(err, &network), errors.As(err, &timeout) && timeout.Timeout(), errors.As(err, &request):
		return fmt.Errorf("the API server at %s cannot be reached, look at the kubeconfig's context or choose another with --context: %w", a.host, cause(err))
	}
	return fmt.Errorf("asking the API server to %s: %w", right, err)
}

// may asks the API server whether the user has the right; false if it does not say.
func (a *API) may(ctx context.Context, r Right) bool {
	attributes := authorizationv1.ResourceAttributes{Namespace: strings.TrimSuffix(r.Namespace, AllNamespaces), Verb: r.Verb, Group: r.Group, Resource: r.Resource, Name: r.Name}
	review, err := a.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
	}, metav1.CreateOptions{})
	return err == nil && review.Status.Allowed
}

// cause is the error without the URL, which nobody typed.
func cause(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// IsDenied reports whether err says that a right is missing.
func IsDenied(err error) bool {
	denied := new(DeniedError)
	return errors.As(err, &denied)
}
