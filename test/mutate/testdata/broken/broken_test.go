// Package broken has a test that fails with and without a mutant.
package broken

import "testing"

func TestBroken(t *testing.T) { t.Fatal("this fails") }
