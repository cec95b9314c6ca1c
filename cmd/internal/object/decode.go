// Package object reads objects as they were sent and changes what somebody's decision
// is about, and nothing else: fields that this build's API types do not know stay
// as they are, wherever they are in the object.
package object

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// Decode reads raw into the object as the API server would: a field has one
// spelling, unknown fields are passed over. kind is what the object has to be, as
// far as it says what it is. into has to be empty.
//
// plain is true if no field in raw is there twice, so that a field which into has
// nothing of is one that raw has nothing of, or null. An object that is not plain is read
// all the same: of some fields the last counts then, others are merged.
//
// An error is one line of less than some hundred characters, whatever raw is.
func Decode(raw []byte, kind metav1.GroupVersionKind, into runtime.Object) (plain bool, err error) {
	if raw := bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return false, errors.New("there is none")
	}
	if err := checkQuantities(raw); err != nil {
		return false, err
	}
	if plain, err = unmarshal(raw, into); err != nil {
		return plain, fmt.Errorf("it is no %s: %.200s", Shown(kind), err.Error())
	}
	if got := into.GetObjectKind().GroupVersionKind(); !got.Empty() && metav1.GroupVersionKind(got) != kind {
		return plain, fmt.Errorf("it is a %s where the review promises a %s", Shown(metav1.GroupVersionKind(got)), Shown(kind))
	}
	return plain, nil
}

// unmarshal reads JSON as the API server does (k8s.io/apimachinery/pkg/util/json) and
// with its errors. into points to an empty value. plain is true if no field is there
// twice.
//
// The reader of encoding/json/v2 takes a third to a half of the time, and takes less: no field
// that is there twice, no text that is not UTF-8. What it takes, it reads the same
// into what the API's types are made of, or else it is read again.
func unmarshal(raw []byte, into any) (plain bool, err error) {
	if jsonv2.Unmarshal(raw, into) == nil {
		return true, nil
	}
	reflect.ValueOf(into).Elem().SetZero()
	return false, kjson.UnmarshalCaseSensitivePreserveInts(raw, into)
}

// checkQuantities refuses quantities such as 1e-1000000000: apimachinery takes
// minutes to parse or compare them. The API server parses an object before it
// asks us, so it never sends one that it cannot parse itself; but it is not the
// only one who can reach this port.
func checkQuantities(raw []byte) error {
	if !mayHaveHugeExponent(raw) {
		return nil
	}
	// What is there twice is parsed twice, so nothing of it may be left out. Texts that
	// are not UTF-8 are for the readers to take or to refuse.
	return walkQuantities(jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)), false)
}

// mayHaveHugeExponent looks for numbers with an exponent of three digits or more, in
// quotes or not, which most objects do not have anywhere. Digits within a word, as in
// an image's digest, are no quantity: apimachinery refuses it at its first wrong letter.
// It does not unescape what is in quotes, so a letter that is written as an escape is
// no part of a quantity, either.
func mayHaveHugeExponent(raw []byte) bool {
	return mayHaveHugeExponentAfter('e', raw) || mayHaveHugeExponentAfter('E', raw)
}

func mayHaveHugeExponentAfter(letter byte, raw []byte) bool {
	for at := 0; ; at++ {
		i := bytes.IndexByte(raw[at:], letter)
		if i < 0 {
			return false
		}
		if at += i; isHugeExponent(raw[at+1:]) && beginsNumber(raw[:at]) {
			return true
		}
	}
}

// isHugeExponent reports whether rest begins with one, and with nothing behind it that
// makes it a word.
func isHugeExponent(rest []byte) bool {
	if len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
		rest = rest[1:]
	}
	digits := 0
	for digits < len(rest) && isDigit(rest[digits]) {
		digits++
	}
	return digits >= 3 && (digits == len(rest) || !isLetter(rest[digits]))
}

// beginsNumber reports whether what head ends with is a number from its beginning;
// to apimachinery e100 is one, too.
func beginsNumber(head []byte) bool {
	i := len(head)
	for i > 0 && isNumeric(head[i-1]) {
		i--
	}
	return i == 0 || !isLetter(head[i-1])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNumeric(c byte) bool { return isDigit(c) || c == '.' || c == '+' || c == '-' }

func isLetter(c byte) bool { return c|' ' >= 'a' && c|' ' <= 'z' }

// maxExponent is far beyond every real quantity, and still fast.
const maxExponent = 99

// quantityFields are the fields of the handled kinds that hold a quantity, or a
// map of them. Elsewhere a text such as 12e3456 is somebody's commit.
var quantityFields = map[string]bool{
	"requests": true, "limits": true, "overhead": true, "capacity": true, "allocatedResources": true,
	"sizeLimit": true, "divisor": true, "quantity": true,
}

// walkQuantities reads one value. quantity is true within a field that holds quantities.
func walkQuantities(decoder *jsontext.Decoder, quantity bool) error {
	token, err := decoder.ReadToken()
	if err != nil {
		return noJSON(err)
	}
	switch kind := token.Kind(); {
	case kind == '{':
		return walkFields(decoder, quantity)
	case kind == '[':
		for decoder.PeekKind() != ']' {
			if err := walkQuantities(decoder, quantity); err != nil {
				return err
			}
		}
		_, err := decoder.ReadToken()
		return noJSON(err)
	case quantity && (kind == '"' || kind == '0'):
		return checkExponent(token.String())
	}
	return nil
}

func walkFields(decoder *jsontext.Decoder, quantity bool) error {
	for decoder.PeekKind() != '}' {
		name, err := decoder.ReadToken()
		if err != nil {
			return noJSON(err)
		}
		key := name.String()
		if key == "metadata" && !quantity { // Labels and annotations may have any name.
			err = noJSON(decoder.SkipValue())
		} else {
			err = walkQuantities(decoder, quantity || quantityFields[key])
		}
		if err != nil {
			return err
		}
	}
	_, err := decoder.ReadToken()
	return noJSON(err)
}

// noJSON is the error of who cannot read on, nil without one.
func noJSON(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("it is no JSON: %.200s", err.Error())
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
