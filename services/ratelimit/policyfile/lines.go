package policyfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parseTree reads YAML for the lines of its values. It refuses what decoding would take without a
// word, refuse without a line, or spend minutes and gigabytes on.
func parseTree(name string, source []byte) (*ast.File, error) {
	tokens, line, err := tokensOf(source)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, line, err)
	}
	tree, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, atLine(name, err)
	}
	check := treeCheck{anchors: map[string]ast.Node{}, sizes: map[string]int{}}
	documents := 0
	for _, document := range tree.Docs {
		if document.Body == nil || document.Body.Type() == ast.CommentType || document.Body.Type() == ast.NullType {
			continue
		}
		if documents++; documents > 1 {
			check.refuse(document.Body, "a second document is not allowed: only the first would count")
		}
		ast.Walk(&check, document.Body)
		if check.size(document.Body) > maxTokens {
			check.refuse(document.Body, "aliases are not allowed to make it that much larger")
		}
	}
	if check.wrong != "" {
		return nil, fmt.Errorf("%s:%d: %s", name, check.at.Position.Line, check.wrong)
	}
	return tree, nil
}

// treeCheck keeps the first thing that is wrong.
type treeCheck struct {
	anchors map[string]ast.Node // what each stands for
	sizes   map[string]int      // of those that are complete
	at      *token.Token
	wrong   string
}

func (c *treeCheck) refuse(node ast.Node, wrong string) {
	if c.wrong == "" {
		c.at, c.wrong = node.GetToken(), wrong
	}
}

// plainNumber is the only way to write a number that every reader of YAML takes for the same. For
// some, 010 is 8, for others 10.
var plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,17})$`)

// Visit checks one node; those in it follow.
func (c *treeCheck) Visit(node ast.Node) ast.Visitor {
	switch n := node.(type) {
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		c.refuse(n, fmt.Sprintf("%s is not allowed: must be a whole number", n.GetToken().Value))
	case *ast.IntegerNode:
		if text := n.GetToken().Value; !plainNumber.MatchString(text) {
			c.refuse(n, fmt.Sprintf("%s is not allowed: a number must be plain digits, such as 100, and a text in quotes", text))
		}
	case *ast.TagNode:
		c.refuse(n, "tags such as "+n.GetToken().Value+" are not allowed")
	case *ast.AnchorNode:
		c.anchors[n.Name.String()] = n.Value
	case *ast.AliasNode:
		if c.anchors[n.Value.String()] == nil {
			c.refuse(n, fmt.Sprintf("*%s is not defined", n.Value))
		}
	case *ast.MappingValueNode:
		c.checkField(n)
	}
	return c
}

// checkField checks that what must be a number is not a text with digits, and the like.
func (c *treeCheck) checkField(n *ast.MappingValueNode) {
	value := c.meant(n.Value)
	switch n.Key.String() {
	case "limit":
		c.checkNumber("limit", n.Value)
	case "lease":
		text := value.GetToken()
		switch _, isText := value.(*ast.StringNode); {
		case isText && text.Value == "auto" && text.Type == token.StringType: // not in quotes
		case strings.HasPrefix(text.Value, "-"):
			c.refuse(n.Value, "lease must be auto, or a whole number from 0 to the limit")
		default:
			c.checkNumber("lease", n.Value)
		}
	case "tiers":
		if tiers, ok := value.(*ast.MappingNode); ok {
			for _, tier := range tiers.Values {
				c.checkNumber(tier.Key.String(), tier.Value)
			}
		}
	case "shadow":
		switch value.(type) {
		case *ast.BoolNode, *ast.NullNode:
		default:
			c.refuse(n.Value, "shadow must be true or false")
		}
	}
}

func (c *treeCheck) checkNumber(field string, value ast.Node) {
	switch c.meant(value).(type) {
	case *ast.StringNode, *ast.LiteralNode, *ast.BoolNode:
		c.refuse(value, field+" must be a whole number, in plain digits and without quotes")
	}
}

// meant is the node without its anchor, or what its alias stands for.
func (c *treeCheck) meant(node ast.Node) ast.Node {
	switch n := node.(type) {
	case *ast.AnchorNode:
		return n.Value
	case *ast.AliasNode:
		return c.anchors[n.Value.String()]
	}
	return node
}

// size is how many nodes there are when every alias is what it stands for, or a number
// above the bound. An anchor in itself has no size yet: that is no end of nodes.
func (c *treeCheck) size(node ast.Node) (size int) {
	const tooLarge = maxTokens + 1
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, value := range n.Values {
			size = min(size+c.size(value), tooLarge)
		}
	case *ast.MappingValueNode:
		size = c.size(n.Key) + c.size(n.Value)
	case *ast.SequenceNode:
		for _, value := range n.Values {
			size = min(size+c.size(value), tooLarge)
		}
	case *ast.AnchorNode:
		size = c.size(n.Value)
		c.sizes[n.Name.String()] = size
	case *ast.AliasNode:
		known, ok := c.sizes[n.Value.String()]
		if size = known; !ok {
			size = tooLarge
		}
	}
	return min(size+1, tooLarge)
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
