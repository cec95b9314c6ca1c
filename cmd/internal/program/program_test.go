package program

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	p := Program{Name: "p", Prefix: "P_", Flags: []Flag{
		{Name: "log-format", Default: "text"}, {Name: "lock", Others: []string{"LEASE_NAME", "OLD_NAME"}},
	}}
	tests := map[string]struct {
		reason string
		args   []string
		env    map[string]string
		flag   string
		want   string
		ok     bool
	}{
		"default":         {"nobody said anything", nil, nil, "log-format", "text", true},
		"none":            {"there is no default", nil, nil, "lock", "", false},
		"twin":            {"dashes are underscores", nil, map[string]string{"P_LOG_FORMAT": "json"}, "log-format", "json", true},
		"other":           {"another's name is understood", nil, map[string]string{"OLD_NAME": "b"}, "lock", "b", true},
		"twin first":      {"our own name is meant for us", nil, map[string]string{"P_LOCK": "a", "LEASE_NAME": "b"}, "lock", "a", true},
		"first other":     {"in their order", nil, map[string]string{"OLD_NAME": "c", "LEASE_NAME": "b"}, "lock", "b", true},
		"flag first":      {"who types a flag means it", []string{"--lock=web"}, map[string]string{"P_LOCK": "a"}, "lock", "web", true},
		"empty flag":      {"an empty value is a value", []string{"--log-format="}, map[string]string{"P_LOG_FORMAT": "json"}, "log-format", "", true},
		"empty variable":  {"an empty variable is none", nil, map[string]string{"P_LOG_FORMAT": ""}, "log-format", "text", true},
		"no flag of ours": {"nor has it a variable", nil, map[string]string{"P_NOPE": "x"}, "nope", "", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := p.Parse(tc.args, func(name string) string { return tc.env[name] })
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := v.Lookup(tc.flag); got != tc.want || ok != tc.ok {
				t.Errorf("got %q %v, want %q %v: %s", got, ok, tc.want, tc.ok, tc.reason)
			}
		})
	}
}

func TestMain_ExitCodes(t *testing.T) {
	p := Program{Name: "p", About: "p does nothing.", Version: "v1", Prefix: "P_", Flags: []Flag{{Name: "lock", Help: "what to hold", Default: "web"}}}
	tests := map[string]struct {
		args      []string
		configure error
		exit      int
		stdout    string
		stderr    string
	}{
		"fine":          {nil, nil, 0, "", ""},
		"help":          {[]string{"-h"}, nil, 0, "p does nothing.\n\nFlags, each with an environment variable:\n  --lock  (P_LOCK)\n      what to hold (default web)\n  --version\n      print the version and exit\n", ""},
		"version":       {[]string{"--version"}, errors.New("not configured"), 0, "p v1\n", ""},
		"unknown flag":  {[]string{"--nope"}, nil, 2, "", "p: flag provided but not defined: -nope: see --help\n"},
		"argument":      {[]string{"start"}, nil, 2, "", "p: argument \"start\" is not allowed: only flags are, see --help\n"},
		"configuration": {nil, errors.New("no lock"), 2, "", "p: no lock\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			exit := p.Main(tc.args, func(string) string { return "" }, &stdout, &stderr, func(Values) (func(context.Context) error, error) {
				return func(context.Context) error { return nil }, tc.configure
			})
			if exit != tc.exit || stdout.String() != tc.stdout || stderr.String() != tc.stderr {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %d, %q, %q", exit, stdout.String(), stderr.String(), tc.exit, tc.stdout, tc.stderr)
			}
		})
	}
}
