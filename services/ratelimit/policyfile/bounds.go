package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxSize is how many bytes a policy file may have. Read no more than one above:
	// Parse refuses what is larger.
	MaxSize = 256 << 10
	// maxPolicies bounds what one file can make a request cost.
	maxPolicies = 64
	// The parser takes time that grows with the square of the tokens, and a stack that grows
	// with the depth.
	maxTokens = 20_000
	maxDepth  = 16
)

// tokensOf are the tokens of a policy file within bounds, or what is wrong and the line.
func tokensOf(source []byte) (tokens token.Tokens, line int, err error) {
	if len(source) > MaxSize {
		return nil, 1, fmt.Errorf("a policy file may have %d KiB, this one is larger", MaxSize>>10)
	}
	if bytes.HasPrefix(source, []byte("\xfe\xff")) || bytes.HasPrefix(source, []byte("\xff\xfe")) {
		return nil, 1, errors.New("must be UTF-8, not UTF-16")
	}
	text := bytes.TrimPrefix(source, []byte("\ufeff")) // as editors of Windows begin a file
	line = 1
	for rest := text; len(rest) > 0; {
		char, size := utf8.DecodeRune(rest)
		switch {
		case char == utf8.RuneError && size == 1:
			return nil, line, errors.New("must be UTF-8")
		case char < ' ' && char != '\t' && char != '\n' && char != '\r' || char == 0x7f:
			return nil, line, fmt.Errorf("the control character %U is not allowed", char)
		case char == '\ufeff':
			return nil, line, errors.New("a byte order mark is allowed only at the beginning")
		case char == '\n':
			line++
		}
		rest = rest[size:]
	}
	tokens = lexer.Tokenize(string(text))
	if len(tokens) > maxTokens {
		return nil, tokens[maxTokens].Position.Line, fmt.Errorf("more than %d names, values and signs are not allowed", maxTokens)
	}
	depth, opened := 0, 0 // by brackets, by signs in the line
	for _, t := range tokens {
		if t.Position.Line != line {
			line, opened = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			opened++
		}
		if depth > maxDepth || opened > maxDepth {
			return nil, line, errors.New("nested too deeply")
		}
	}
	return tokens, 0, nil
}
