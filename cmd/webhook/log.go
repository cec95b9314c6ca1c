package main

import (
	"io"
	"strconv"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/elector-io/elector/cmd/internal/program"
)

// setUpLogging sends klog's lines to w, and what libraries say with them.
func (c *config) setUpLogging(w io.Writer) {
	program.LogTo(w, c.logFormat == "json", c.verbosity)
	// For those who ask klog itself, such as client-go. The number was checked.
	_ = new(klog.Level).Set(strconv.Itoa(c.verbosity))
	klog.CopyStandardLogTo("INFO") // net/http's complaints about clients
	ctrl.SetLogger(libraryLog())
}

// libraryLog is for controller-runtime, which says much about itself: it is heard
// from verbosity 1 on. Errors are always shown.
func libraryLog() logr.Logger { return logr.New(quieter{klog.Background().WithCallDepth(1).GetSink()}) }

// quieter is a sink that takes information for one level less important.
type quieter struct{ logr.LogSink }

// Init does nothing: the sink is klog's, which is in use already.
func (quieter) Init(logr.RuntimeInfo) {}

func (q quieter) Enabled(level int) bool { return q.LogSink.Enabled(level + 1) }

func (q quieter) Info(level int, msg string, keysAndValues ...any) {
	q.LogSink.Info(level+1, msg, keysAndValues...)
}

func (q quieter) WithValues(keysAndValues ...any) logr.LogSink {
	return quieter{q.LogSink.WithValues(keysAndValues...)}
}

func (q quieter) WithName(name string) logr.LogSink { return quieter{q.LogSink.WithName(name)} }
