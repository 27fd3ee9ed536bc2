package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/config"
)

// readPage returns a page, its path as seen from the checkout.
func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// TestLinks: what a page points to is there.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range append(pages, "README.md", "CHANGELOG.md") {
		for _, found := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			require.FileExists(t, filepath.Join(filepath.Dir(page), found[1]), "linked from %s", page)
		}
	}
}

// TestReadmeLinksEveryPage: nobody has to look for a page.
func TestReadmeLinksEveryPage(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	readme := readPage(t, "README.md")
	for _, page := range pages {
		require.Contains(t, readme, "("+page+")")
	}
}

// TestDocsNameEveryMetric: the page for operators has the metrics that the
// code has, and no others.
func TestDocsNameEveryMetric(t *testing.T) {
	name := regexp.MustCompile(`passerelle_[a-z_]+`)
	var documented []string
	for _, row := range regexp.MustCompile(`(?m)^\| .*$`).FindAllString(readPage(t, "docs/operate.md"), -1) {
		documented = append(documented, name.FindAllString(strings.SplitN(row, "|", 3)[1], -1)...)
	}
	defined := definedMetrics(t)
	require.NotEmpty(t, defined)
	slices.Sort(documented)
	require.Equal(t, defined, slices.Compact(documented))
}

// definedMetrics are the names of the metrics in our sources, sorted. Folders
// that git ignores are left out: other tests write there at the same time.
func definedMetrics(t *testing.T) []string {
	t.Helper()
	definition := regexp.MustCompile(`Name:\s+"(passerelle_[a-z_]+)"`)
	var defined []string
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (path != "." && strings.HasPrefix(path, ".") || path == "demo-out" || path == "data"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		for _, found := range definition.FindAllStringSubmatch(readPage(t, path), -1) {
			defined = append(defined, found[1])
		}
		return nil
	}))
	slices.Sort(defined)
	return slices.Compact(defined)
}

// TestDocsNameFilesThatExist: files named in the pages about the code are there.
func TestDocsNameFilesThatExist(t *testing.T) {
	file := regexp.MustCompile("`([a-z_]+(?:/[a-z_.-]+)*\\.(?:go|txt|json|txtar|yaml))`")
	for _, page := range []string{"docs/architecture.md", "docs/testing.md"} {
		found := file.FindAllStringSubmatch(readPage(t, page), -1)
		require.NotEmpty(t, found, page)
		for _, f := range found {
			require.FileExists(t, f[1], "named in %s", page)
		}
	}
}

// TestReadmeConfiguration: the configuration to begin with has no mistake.
func TestReadmeConfiguration(t *testing.T) {
	block := regexp.MustCompile("(?s)   ```yaml\n(   server:\n.*?)   ```").FindStringSubmatch(readPage(t, "README.md"))
	require.NotNil(t, block)
	file := filepath.Join(t.TempDir(), "passerelle.yaml")
	text := strings.ReplaceAll("\n"+block[1], "\n   ", "\n")
	for i, name := range []string{"/etc/passerelle/as_token", "/etc/passerelle/hs_token"} {
		token := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(token, fmt.Appendf(nil, "7c1e4f%da9d02b586e3f7a1c4d9b0e2f5\n", i), 0o600))
		require.Contains(t, text, name)
		text = strings.ReplaceAll(text, name, token)
	}
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := config.Load(file, nil)
	require.NoError(t, err)
	require.Len(t, c.Federation.Rules, 2)
}
