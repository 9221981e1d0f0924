package architecture_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

// What a constructor cannot work with it says when it is called, in one line, by an
// error or, if it returns none, a panic: no request and no background work is the
// first to find it. And no secret that is wrong is shown.
func TestConstructorsTellWhatIsWrong(t *testing.T) {
	rows := wrongArguments(t)
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		for i, row := range rows[name] {
			text := told(row.call)
			if text == "" || strings.ContainsAny(text, "\r\n") || !strings.Contains(text, row.says) {
				t.Errorf("%s, %d: says %q, want one line with %q", name, i, text, row.says)
			}
			if strings.Contains(text, "short") || strings.Contains(text, "sssss") || strings.Contains(text, "nil pointer") {
				t.Errorf("%s, %d: says %q", name, i, text)
			}
		}
	}
}

func told(call func() error) (text string) {
	defer func() {
		if cause := recover(); cause != nil {
			text = fmt.Sprint(cause)
		}
	}()
	if err := call(); err != nil {
		return err.Error()
	}
	return ""
}

// No constructor is left out of the list above.
func TestConstructorsAreAllHeldToIt(t *testing.T) {
	rows := wrongArguments(t)
	for _, folder := range []string{"handlers", "services", "services/redis", "services/lock", "services/ratelimit", "services/ratelimit/policyfile", "services/session", "services/store", "middleware"} {
		for _, name := range constructors(t, os.DirFS("../.."), folder) {
			if _, listed := rows[name]; !listed {
				t.Errorf("%s is not held to what it must refuse", name)
			}
			delete(rows, name)
		}
	}
	for name := range rows {
		t.Errorf("%s is no constructor", name)
	}
}

// constructors are a folder's exported functions with parameters that make something
// or return a handler.
func constructors(t *testing.T, tree fs.FS, folder string) (names []string) {
	t.Helper()
	files, err := fs.Glob(tree, path.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file in %s: %v", folder, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.IsExported() && f.Type.Params.NumFields() > 0 && isConstructor(f) {
				names = append(names, path.Base(folder)+"."+f.Name.Name)
			}
		}
	}
	return names
}

func isConstructor(f *ast.FuncDecl) bool {
	for _, verb := range []string{"New", "Start", "Open", "Parse", "Load"} {
		if strings.HasPrefix(f.Name.Name, verb) {
			return true
		}
	}
	if f.Type.Results == nil {
		return false
	}
	switch result := f.Type.Results.List[0].Type.(type) {
	case *ast.FuncType:
		return true
	case *ast.SelectorExpr:
		return result.Sel.Name == "HandlerFunc"
	case *ast.Ident:
		return strings.HasSuffix(result.Name, "Option")
	}
	return false
}

// Middleware that is given no logger writes to the default one, also where it first
// needs one: in a request.
func TestMiddlewareWithoutALoggerHasTheDefault(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	gin.SetMode(gin.TestMode)
	router := gin.New()
	router.Use(middleware.AccessLog(nil), middleware.Recovery(nil), middleware.WarnUntrustedProxy(nil, nil), middleware.Metrics(nil))
	router.GET("/", func(*gin.Context) { panic("for the test") })
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("X-Forwarded-For", "192.0.2.1")
	answer := httptest.NewRecorder()
	router.ServeHTTP(answer, request)
	for _, word := range []string{"msg=panic", "msg=request", "not trusted"} {
		if answer.Code != 500 || !strings.Contains(log.String(), word) {
			t.Errorf("status %d, no %q in the log: %s", answer.Code, word, &log)
		}
	}
}
