package main

import (
	"go/ast"
	"regexp"
)

// skipped is code in which nothing is mutated.
type skipped struct {
	// call matches what is called, as it is written; fn the name of a function as in mutant.fn. One of them is set.
	call, fn *regexp.Regexp
	why      string
}

var skips = []skipped{
	{call: regexp.MustCompile(`(^|\.)(klog|log|logger)\.(V\(\d+\)\.)?(Info|InfoS|Infof|Error|ErrorS|Errorf|Warning|Warningf)$`), why: "what is logged is for people; no test should pin it"},
	{call: regexp.MustCompile(`\.complain$`), why: "it logs"},
	{fn: regexp.MustCompile(`\.(complain|String|Error|until)$`), why: "it makes text for people"},
	{call: regexp.MustCompile(`^(errors\.New|fmt\.Errorf)$`), why: "the text of an error; that there is one is mutated where it is returned"},
	{call: regexp.MustCompile(`(^|\.)Metrics\.\w+$|^m\.count$`), why: "counting is not electing; what the metrics say has tests of its own"},
	{call: regexp.MustCompile(`^(cancel|stop|stream\.Close)$`), why: "it gives back early what its context's deadline gives back anyway"},
}

// skippedCall tells whether a call is left as it is, with its arguments.
func (f *finder) skippedCall(call *ast.CallExpr) bool {
	callee := flat(f.text(call.Fun))
	for _, s := range f.skips {
		if s.call != nil && s.call.MatchString(callee) {
			return true
		}
	}
	return false
}

func (f *finder) skippedFunc(name string) bool {
	for _, s := range f.skips {
		if s.fn != nil && s.fn.MatchString(name) {
			return true
		}
	}
	return false
}

// inert tells whether nothing is left of statements without those that are skipped.
func (f *finder) inert(statements []ast.Stmt) bool {
	for _, s := range statements {
		if call := calledBy(s); call == nil || !f.skippedCall(call) {
			return false
		}
	}
	return true
}

// calledBy returns the call that is all of a statement, or nil.
func calledBy(s ast.Stmt) *ast.CallExpr {
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, _ := s.X.(*ast.CallExpr)
		return call
	case *ast.DeferStmt:
		return s.Call
	case *ast.GoStmt:
		return s.Call
	}
	return nil
}
