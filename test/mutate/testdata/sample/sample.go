// Package sample is what the tests of mutate mutate: each function is there for one thing that can become of a mutant.
package sample

// tested has tests for every value near its limits.
func tested(n int) bool { return n > 2 }

// untested is called by no test.
func untested(n int) int { return n + 1 }

// unequal is the same with > and >=: the two are equal at the limit.
func unequal(a, b int) int {
	if a > b {
		return a
	}
	return b
}

// loop never ends if its step is taken away.
func loop(n int) (sum int) {
	for n > 0 {
		sum += n
		n--
	}
	return sum
}

// text has a + that can't be a -.
func text(s string) string { return s + "!" }
