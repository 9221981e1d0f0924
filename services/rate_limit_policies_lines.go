package services

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parsePolicyTree reads YAML for where things are, and refuses what decoding would take without a
// word, or refuse without a line.
func parsePolicyTree(name string, source []byte) (*ast.File, error) {
	tree, err := parser.ParseBytes(source, 0)
	if err != nil {
		return nil, atLine(name, err)
	}
	check := treeCheck{anchors: map[string]bool{}}
	documents := 0
	for _, document := range tree.Docs {
		if document.Body == nil || document.Body.Type() == ast.CommentType || document.Body.Type() == ast.NullType {
			continue
		}
		if documents++; documents > 1 {
			check.refuse(document.Body, "a second document is not allowed: only the first would count")
		}
		ast.Walk(&check, document.Body)
	}
	if check.wrong != "" {
		return nil, fmt.Errorf("%s:%d: %s", name, check.at.Position.Line, check.wrong)
	}
	return tree, nil
}

// treeCheck keeps the first thing that is wrong.
type treeCheck struct {
	anchors map[string]bool
	at      *token.Token
	wrong   string
}

func (c *treeCheck) refuse(node ast.Node, wrong string) {
	if c.wrong == "" {
		c.at, c.wrong = node.GetToken(), wrong
	}
}

// Visit checks one node; those in it follow.
func (c *treeCheck) Visit(node ast.Node) ast.Visitor {
	switch n := node.(type) {
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		c.refuse(n, fmt.Sprintf("%s is not allowed: must be a whole number", n.GetToken().Value))
	case *ast.AnchorNode:
		c.anchors[n.Name.String()] = true
	case *ast.AliasNode:
		if !c.anchors[n.Value.String()] {
			c.refuse(n, fmt.Sprintf("*%s is not defined", n.Value))
		}
	}
	return c
}

// atLine is an error about YAML as one line that begins with where it is.
func atLine(name string, err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		return fmt.Errorf("%s:%d: %s", name, at.GetToken().Position.Line, firstLine(at.GetMessage()))
	}
	return fmt.Errorf("%s:1: %s", name, firstLine(err.Error())) // somewhere
}

// lineOf is where a field of the i-th policy is, or else the policy.
func lineOf(tree *ast.File, i int, field string) int {
	whole, _, _ := strings.Cut(field, ".")
	policy := fmt.Sprintf("$.policies[%d]", i)
	return lineAt(tree, policy+"."+field, policy+"."+whole, policy+".name", policy)
}

// lineAt is where the first of the paths is that is there, or else the beginning.
func lineAt(tree *ast.File, paths ...string) int {
	for _, path := range paths {
		p, err := yaml.PathString(path)
		if err != nil {
			continue
		}
		if node, err := p.FilterFile(tree); err == nil && node != nil {
			return node.GetToken().Position.Line
		}
	}
	return 1
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
