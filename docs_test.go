package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLinks: what a page points to is there.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			require.FileExists(t, filepath.Join(filepath.Dir(page), found[1]), "linked from %s", page)
		}
	}
}

// TestDocsNameEveryMetric: the page for operators has the metrics that the
// code has, and no others.
func TestDocsNameEveryMetric(t *testing.T) {
	page, err := os.ReadFile("docs/operate.md")
	require.NoError(t, err)
	name := regexp.MustCompile(`passerelle_[a-z_]+`)
	var documented, defined []string
	for _, row := range regexp.MustCompile(`(?m)^\| .*$`).FindAllString(string(page), -1) {
		documented = append(documented, name.FindAllString(strings.SplitN(row, "|", 3)[1], -1)...)
	}
	definition := regexp.MustCompile(`Name:\s+"(passerelle_[a-z_]+)"`)
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range definition.FindAllStringSubmatch(string(source), -1) {
			defined = append(defined, found[1])
		}
		return err
	}))
	slices.Sort(documented)
	slices.Sort(defined)
	require.Equal(t, slices.Compact(defined), slices.Compact(documented))
}

// TestDocsNameFilesThatExist: files named in the pages about the code are there.
func TestDocsNameFilesThatExist(t *testing.T) {
	file := regexp.MustCompile("`([a-z_]+(?:/[a-z_.-]+)*\\.(?:go|txt|json|txtar|yaml))`")
	for _, page := range []string{"docs/architecture.md", "docs/testing.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, found := range file.FindAllStringSubmatch(string(text), -1) {
			require.FileExists(t, found[1], "named in %s", page)
		}
	}
}
