package main

import (
	"cmp"
	"go/ast"
	"go/scanner"
	"go/token"
	"go/types"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// swaps are the operators that become others: comparisons their neighbour and their negation.
var swaps = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ},
	token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ},
	token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ},
	token.NEQ: {token.EQL},

	token.LAND: {token.LOR},
	token.LOR:  {token.LAND},

	token.ADD: {token.SUB},
	token.SUB: {token.ADD},
	token.MUL: {token.QUO},
	token.QUO: {token.MUL},
	token.SHL: {token.SHR},
	token.SHR: {token.SHL},

	token.ADD_ASSIGN: {token.SUB_ASSIGN},
	token.SUB_ASSIGN: {token.ADD_ASSIGN},
	token.MUL_ASSIGN: {token.QUO_ASSIGN},
	token.QUO_ASSIGN: {token.MUL_ASSIGN},
	token.SHL_ASSIGN: {token.SHR_ASSIGN},
	token.SHR_ASSIGN: {token.SHL_ASSIGN},

	token.INC: {token.DEC},
	token.DEC: {token.INC},

	token.BREAK:    {token.CONTINUE},
	token.CONTINUE: {token.BREAK},
}

// finder collects the mutants of one file.
type finder struct {
	path  string
	src   []byte
	file  *token.File
	info  *types.Info
	skips []skipped

	fn    string
	found []mutant
}

// find returns the mutants of a file in the order of its text. Some of them may not compile.
func find(path string, src []byte, fset *token.FileSet, file *ast.File, info *types.Info, skips []skipped) []mutant {
	f := &finder{path: path, src: src, file: fset.File(file.FileStart), info: info, skips: skips}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			f.fn = funcName(d)
			if !f.skippedFunc(f.fn) {
				ast.PreorderStack(d, nil, f.visit)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					f.fn = values.Names[0].Name
					ast.PreorderStack(values, nil, f.visit)
				}
			}
		}
	}
	slices.SortStableFunc(f.found, func(a, b mutant) int { return cmp.Compare(a.start, b.start) })
	found := distinct(f.found, src)
	number(found)
	return found
}

// distinct drops the mutants whose programs another mutant's is the same as, and those that change nothing.
func distinct(mutants []mutant, src []byte) []mutant {
	seen := map[uint64]bool{tokens(src): true}
	return slices.DeleteFunc(mutants, func(m mutant) bool {
		sum := tokens(m.apply(src, m.texts[0]))
		if seen[sum] {
			return true
		}
		seen[sum] = true
		return false
	})
}

// tokens is a sum over what a compiler sees of src: neither comments nor space.
func tokens(src []byte) uint64 {
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(src)), src, nil, 0)
	sum := fnv.New64a()
	for {
		_, tok, literal := s.Scan()
		if tok == token.EOF {
			return sum.Sum64()
		}
		if tok == token.SEMICOLON || literal == "" {
			literal = tok.String()
		}
		sum.Write([]byte(literal + "\x00"))
	}
}

func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	receiver := d.Recv.List[0].Type
	for {
		switch t := receiver.(type) {
		case *ast.StarExpr:
			receiver = t.X
		case *ast.IndexExpr:
			receiver = t.X
		case *ast.IndexListExpr:
			receiver = t.X
		case *ast.Ident:
			return t.Name + "." + d.Name.Name
		default:
			return d.Name.Name
		}
	}
}

func (f *finder) text(n ast.Node) string { return f.between(n.Pos(), n.End()) }

func (f *finder) between(from, to token.Pos) string {
	return string(f.src[f.file.Offset(from):f.file.Offset(to)])
}

// add notes a mutant: between from and to the first of texts that compiles is put.
func (f *finder) add(from, to token.Pos, before, after string, texts ...string) {
	f.found = append(f.found, mutant{
		file: f.path, fn: f.fn, line: f.file.Line(from), before: flat(before), after: flat(after),
		start: f.file.Offset(from), end: f.file.Offset(to), texts: texts,
	})
}

// replace notes a mutant that has text in place of a part of n, and is shown as n.
func (f *finder) replace(n ast.Node, from, to token.Pos, text string) {
	f.add(from, to, f.text(n), f.between(n.Pos(), from)+text+f.between(to, n.End()), text)
}

// visit mutates one node and tells whether to go on into it.
func (f *finder) visit(n ast.Node, stack []ast.Node) bool {
	switch n := n.(type) {
	case *ast.TypeSpec, *ast.FuncType, *ast.ImportSpec:
		return false
	case *ast.FuncDecl:
		f.returnEarly(n.Type, n.Body)
	case *ast.FuncLit:
		f.returnEarly(n.Type, n.Body)
	case ast.Stmt:
		return f.statement(n, stack)
	case ast.Expr:
		return f.expression(n)
	}
	return true
}

func (f *finder) expression(n ast.Expr) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f.skippedCall(n) {
			return false
		}
		if id, ok := n.Fun.(*ast.Ident); ok && f.universal(id) {
			switch id.Name {
			case "min":
				f.replace(n, id.Pos(), id.End(), "max")
			case "max":
				f.replace(n, id.Pos(), id.End(), "min")
			}
		}
	case *ast.BinaryExpr:
		for _, op := range swaps[n.Op] {
			f.replace(n, n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), op.String())
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.replace(n, n.OpPos, n.X.Pos(), "")
		}
	case *ast.BasicLit:
		if value, err := strconv.ParseInt(n.Value, 0, 64); err == nil && n.Kind == token.INT {
			for _, v := range []int64{value - 1, value + 1} {
				f.add(n.Pos(), n.End(), n.Value, strconv.FormatInt(v, 10), "("+strconv.FormatInt(v, 10)+")")
			}
		}
	case *ast.Ident:
		switch {
		case !f.universal(n):
		case n.Name == "true":
			f.add(n.Pos(), n.End(), "true", "false", "false")
		case n.Name == "false":
			f.add(n.Pos(), n.End(), "false", "true", "true")
		}
	}
	return true
}

// universal tells whether a name is the language's own, not one that the program gave to something else.
func (f *finder) universal(id *ast.Ident) bool {
	object := f.info.Uses[id]
	return object != nil && object.Parent() == types.Universe
}

func (f *finder) statement(n ast.Stmt, stack []ast.Node) bool {
	if call := calledBy(n); call != nil && f.skippedCall(call) {
		return false
	}
	parent := stack[len(stack)-1]
	if comm, ok := parent.(*ast.CommClause); ok && comm.Comm == n {
		return true // it goes with its clause
	}
	switch n := n.(type) {
	case *ast.ExprStmt:
		f.remove(n)
	case *ast.SendStmt, *ast.GoStmt, *ast.DeferStmt:
		f.remove(n)
	case *ast.IncDecStmt:
		f.remove(n)
		for _, op := range swaps[n.Tok] {
			f.replace(n, n.TokPos, n.End(), op.String())
		}
	case *ast.AssignStmt:
		f.assignment(n)
	case *ast.ReturnStmt:
		f.returned(n, stack)
	case *ast.BranchStmt:
		for _, other := range swaps[n.Tok] {
			f.replace(n, n.TokPos, n.TokPos+token.Pos(len(n.Tok.String())), other.String())
		}
	case *ast.IfStmt:
		f.negate(n.Cond)
		f.empty(n.Body, "if "+f.text(n.Cond))
		if block, ok := n.Else.(*ast.BlockStmt); ok {
			f.empty(block, "else")
		}
	case *ast.SwitchStmt:
		f.clauses(n.Body, n.Tag == nil)
	case *ast.TypeSwitchStmt:
		f.clauses(n.Body, false)
	case *ast.SelectStmt:
		f.selected(n)
	}
	return true
}

func (f *finder) remove(n ast.Stmt, instead ...string) {
	f.add(n.Pos(), n.End(), f.text(n), removed, append([]string{""}, instead...)...)
}

// assignment removes an assignment, or the part of it that is one variable's. What is declared can't be removed.
func (f *finder) assignment(n *ast.AssignStmt) {
	if n.Tok == token.DEFINE {
		return
	}
	for _, op := range swaps[n.Tok] {
		f.replace(n, n.TokPos, n.TokPos+token.Pos(len(n.Tok.String())), op.String())
	}
	if n.Tok != token.ASSIGN {
		f.remove(n)
		return
	}
	if blank(n.Lhs...) {
		call, ok := n.Rhs[0].(*ast.CallExpr)
		if ok && !f.skippedCall(call) {
			f.remove(n)
		}
		return
	}
	// Without the assignment a variable or an import may be unused.
	values := strings.Repeat("_, ", len(n.Lhs)-1) + "_ = " + f.between(n.Rhs[0].Pos(), n.End())
	f.remove(n, values)
	if len(n.Lhs) < 2 {
		return
	}
	for _, variable := range n.Lhs {
		if !blank(variable) {
			f.replace(n, variable.Pos(), variable.End(), "_")
		}
	}
}

func blank(variables ...ast.Expr) bool {
	return !slices.ContainsFunc(variables, func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return !ok || id.Name != "_"
	})
}

// negate mutates a condition. A comparison is left to its operator, and what is negated to its "!".
func (f *finder) negate(cond ast.Expr) {
	switch e := ast.Unparen(cond).(type) {
	case *ast.BinaryExpr:
		if e.Op != token.LAND && e.Op != token.LOR {
			return
		}
	case *ast.UnaryExpr:
		return
	case *ast.Ident:
		if f.universal(e) {
			return
		}
	}
	text := "!(" + f.text(cond) + ")"
	f.add(cond.Pos(), cond.End(), f.text(cond), text, text)
}

// empty removes what is in a block.
func (f *finder) empty(block *ast.BlockStmt, head string) {
	if !f.inert(block.List) {
		f.add(block.Pos(), block.End(), head+" { ... }", head+" {}", "{}")
	}
}

// clauses mutates the cases of a switch: each is emptied; and removed, where what comes after it may be chosen instead.
func (f *finder) clauses(body *ast.BlockStmt, conditions bool) {
	hasDefault := slices.ContainsFunc(body.List, func(s ast.Stmt) bool { return s.(*ast.CaseClause).List == nil })
	for i, s := range body.List {
		clause := s.(*ast.CaseClause)
		head := f.between(clause.Pos(), clause.Colon+1)
		if !f.inert(clause.Body) {
			f.add(clause.Colon+1, clause.End(), head+" ...", head, "")
		}
		if clause.List != nil && (hasDefault || conditions && i+1 < len(body.List)) {
			f.add(clause.Pos(), clause.End(), head+" ...", removed, "")
		}
		if conditions {
			for _, cond := range clause.List {
				f.negate(cond)
			}
		}
	}
}

func (f *finder) selected(n *ast.SelectStmt) {
	for _, s := range n.Body.List {
		clause := s.(*ast.CommClause)
		head := f.between(clause.Pos(), clause.Colon+1)
		if !f.inert(clause.Body) {
			f.add(clause.Colon+1, clause.End(), head+" ...", head, "")
		}
		f.add(clause.Pos(), clause.End(), head+" ...", removed, "")
	}
}

// returnEarly makes a function return at once.
func (f *finder) returnEarly(signature *ast.FuncType, body *ast.BlockStmt) {
	if body == nil || f.inert(body.List) {
		return
	}
	if len(body.List) == 1 {
		switch body.List[0].(type) {
		case *ast.ReturnStmt, *ast.ExprStmt, *ast.AssignStmt, *ast.IncDecStmt, *ast.SendStmt:
			return // the same as mutating that statement
		}
	}
	text := strings.TrimSpace("return " + strings.Join(f.zeros(signature), ", "))
	f.add(body.Lbrace+1, body.Lbrace+1, "{", "{ "+text, " "+text+"; ")
}

// returned makes each value of a return the zero value of its type; booleans, which no other type is so full of, true as well.
func (f *finder) returned(n *ast.ReturnStmt, stack []ast.Node) {
	zeros := f.zeros(signatureAround(stack))
	if len(n.Results) != len(zeros) {
		if len(n.Results) == 1 {
			text := strings.Join(zeros, ", ")
			f.replace(n, n.Results[0].Pos(), n.Results[0].End(), text)
		}
		return
	}
	for i, value := range n.Results {
		if v := f.info.Types[value].Value; v != nil && v.ExactString() == zeros[i] && zeros[i] != "false" {
			continue // a constant that is zero already, by another name
		}
		f.replace(n, value.Pos(), value.End(), zeros[i])
		if zeros[i] == "false" {
			f.replace(n, value.Pos(), value.End(), "true")
		}
	}
}

// signatureAround returns the type of the innermost function.
func signatureAround(stack []ast.Node) *ast.FuncType {
	for _, n := range slices.Backward(stack) {
		switch n := n.(type) {
		case *ast.FuncLit:
			return n.Type
		case *ast.FuncDecl:
			return n.Type
		}
	}
	return &ast.FuncType{}
}

// zeros returns the zero values of what a function returns.
func (f *finder) zeros(signature *ast.FuncType) []string {
	if signature.Results == nil {
		return nil
	}
	var values []string
	for _, field := range signature.Results.List {
		for range max(1, len(field.Names)) {
			values = append(values, f.zero(field.Type))
		}
	}
	return values
}

func (f *finder) zero(expr ast.Expr) string {
	typ := f.info.TypeOf(expr)
	if typ == nil {
		return "nil"
	}
	if _, ok := typ.(*types.TypeParam); ok {
		return "*new(" + f.text(expr) + ")"
	}
	switch t := typ.Underlying().(type) {
	case *types.Basic:
		switch {
		case t.Info()&types.IsBoolean != 0:
			return "false"
		case t.Info()&types.IsString != 0:
			return `""`
		case t.Info()&types.IsNumeric != 0:
			return "0"
		}
	case *types.Struct, *types.Array:
		return f.text(expr) + "{}"
	}
	return "nil"
}
