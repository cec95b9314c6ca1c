// Package object reads objects as they were sent and changes what somebody's decision
// is about, and nothing else: fields that this build's API types do not know stay
// as they are, wherever they are in the object.
package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// Decode reads raw into the object as the API server would: a field has one
// spelling, unknown fields are passed over. kind is what the object has to be, as
// far as it says what it is.
//
// An error is one line of less than some hundred characters, whatever raw is.
func Decode(raw []byte, kind metav1.GroupVersionKind, into runtime.Object) (runtime.Object, error) {
	if raw := bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return nil, errors.New("there is none")
	}
	if err := checkQuantities(raw); err != nil {
		return nil, err
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, into); err != nil {
		return nil, fmt.Errorf("it is no %s: %.200s", Shown(kind), err.Error())
	}
	if got := into.GetObjectKind().GroupVersionKind(); !got.Empty() && metav1.GroupVersionKind(got) != kind {
		return nil, fmt.Errorf("it is a %s where the review promises a %s", Shown(metav1.GroupVersionKind(got)), Shown(kind))
	}
	return into, nil
}

// checkQuantities refuses quantities such as 1e-1000000000: apimachinery takes
// minutes to parse or compare them. The API server parses an object before it
// asks us, so it never sends one that it cannot parse itself; but it is not the
// only one who can reach this port.
func checkQuantities(raw []byte) error {
	if !mayHaveHugeExponent(raw) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var object any
	if err := decoder.Decode(&object); err != nil {
		return fmt.Errorf("it is no JSON: %.200s", err.Error())
	}
	return walkQuantities(object, false)
}

// mayHaveHugeExponent looks for an exponent of three digits or more, which most
// objects do not have anywhere.
func mayHaveHugeExponent(raw []byte) bool {
	for i := 1; i < len(raw); i++ {
		if raw[i] != 'e' && raw[i] != 'E' || !isDigit(raw[i-1]) && raw[i-1] != '.' {
			continue
		}
		rest := raw[i+1:]
		if len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if len(rest) >= 3 && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]) {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// maxExponent is far beyond every real quantity, and still fast.
const maxExponent = 99

// quantityFields are the fields of the handled kinds that hold a quantity, or a
// map of them. Elsewhere a text such as 12e3456 is somebody's commit.
var quantityFields = map[string]bool{
	"requests": true, "limits": true, "overhead": true, "capacity": true, "allocatedResources": true,
	"sizeLimit": true, "divisor": true,
}

func walkQuantities(value any, quantity bool) error {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if key == "metadata" {
				continue // Labels and annotations may have any name.
			}
			if err := walkQuantities(inner, quantity || quantityFields[key]); err != nil {
				return err
			}
		}
	case []any:
		for _, inner := range v {
			if err := walkQuantities(inner, quantity); err != nil {
				return err
			}
		}
	case string:
		if quantity {
			return checkExponent(v)
		}
	case json.Number:
		if quantity {
			return checkExponent(v.String())
		}
	}
	return nil
}

func checkExponent(s string) error {
	_, exponent, ok := strings.Cut(strings.ToLower(strings.TrimSpace(s)), "e")
	if !ok || exponent == "" {
		return nil // No exponent, or the suffix E of exabytes.
	}
	n, err := strconv.Atoi(exponent)
	if errors.Is(err, strconv.ErrRange) || n > maxExponent || n < -maxExponent {
		return fmt.Errorf("the quantity %.200q has an exponent beyond %d", s, maxExponent)
	}
	return nil // What is no number at all is refused where it is parsed.
}

// Shown is a kind as sentences have it, in quotes and cut if it is very long.
func Shown(kind metav1.GroupVersionKind) string {
	version := kind.Version
	if kind.Group != "" {
		version = kind.Group + "/" + version
	}
	return fmt.Sprintf("%.200q", version+" "+kind.Kind)
}
