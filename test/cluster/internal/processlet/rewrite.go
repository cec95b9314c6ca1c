package processlet

import (
	"net/netip"
	"strings"
)

// Without network namespaces all pods share one loopback interface, so two of them could not both listen on 127.0.0.1:4040 or on :4041.
// Each pod has an address of its own instead, and what a pod says about its loopback is rewritten to mean that address.

// rewriteAddresses makes a word of a command line, or the value of an environment variable, mean the pod's own address:
// "127.0.0.1:" and "localhost:" wherever they stand as a host, and a listen address ":port" or "0.0.0.0:port" that is the whole value
// or the whole value of a flag. Nothing else is changed.
func rewriteAddresses(word string, wire netip.Addr) string {
	own := wire.String() + ":"
	for _, host := range []string{"127.0.0.1:", "localhost:", "[::1]:"} {
		word = replaceHost(word, host, own)
	}
	flag, value := "", word
	if strings.HasPrefix(word, "-") {
		if name, v, ok := strings.Cut(word, "="); ok {
			flag, value = name+"=", v
		}
	}
	for _, every := range []string{":", "0.0.0.0:", "[::]:"} {
		if port, ok := strings.CutPrefix(value, every); ok && isPort(port) {
			return flag + own + port
		}
	}
	return word
}

// replaceHost replaces host where it is not the end of a longer name: "mylocalhost:" stays.
func replaceHost(s, host, own string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, host)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		if i > 0 && isNameByte(s[i-1]) {
			b.WriteString(host)
		} else {
			b.WriteString(own)
		}
		s = s[i+len(host):]
	}
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

func isPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
