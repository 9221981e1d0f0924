// Package document reads the repository's documents. Its tests hold them to the tree, and e2e runs
// their commands. They are not in e2e because they read all files: any change runs them again.
package document

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Document is one of the repository's Markdown files.
type Document struct {
	Name   string // from the repository's root
	Text   string
	Blocks []Block
}

// Block is a fenced block of a document.
type Block struct {
	Language string
	Text     string
	Line     int // where it begins
}

// Program is how a whole program in Go begins; it is no part of an Example.
const Program = "package main\n"

// Read reads the document with this name.
func Read(t testing.TB, name string) Document {
	t.Helper()
	d := Document{Name: name, Text: read(t, name)}
	var open *Block
	for i, line := range strings.Split(d.Text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &Block{Language: language, Line: i + 1}
		case fence:
			d.Blocks = append(d.Blocks, *open)
			open = nil
		case open != nil:
			open.Text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", name, open.Line)
	}
	return d
}

// ReadAll reads all documents.
func ReadAll(t testing.TB) []Document {
	t.Helper()
	var all []Document
	for _, pattern := range []string{"*.md", "bench/README.md"} {
		names, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			name, err = filepath.Rel(root(t), name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, Read(t, name))
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d documents", len(all))
	}
	return all
}

// Variable is one of .env.example.
type Variable struct{ Name, Value string }

// Variables reads .env.example.
func Variables(t testing.TB) []Variable {
	t.Helper()
	var all []Variable
	for _, found := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`).FindAllStringSubmatch(read(t, ".env.example"), -1) {
		all = append(all, Variable{found[1], found[2]})
	}
	return all
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// root is where go.mod is, from the folder of the test.
func root(t testing.TB) string {
	t.Helper()
	for _, folder := range []string{"..", "../.."} {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
	}
	t.Fatal("go.mod is not above")
	return ""
}
