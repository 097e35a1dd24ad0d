package tidy

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fenceMark    = regexp.MustCompile("(?m)^```")
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// TestTranslations holds README's translations to the English one: the same headings and tables, links and commands.
func TestTranslations(t *testing.T) {
	english := outlineOf(read(t, "README.md"))
	if len(english.headings) == 0 || len(english.commands) == 0 || len(english.links) == 0 {
		t.Fatalf("README.md has %d headings, %d commands and %d links", len(english.headings), len(english.commands),
			len(english.links))
	}

	for _, name := range []string{"README.zh-TW.md", "README.zh-CN.md"} {
		got := outlineOf(read(t, name))
		if !slices.Equal(got.headings, english.headings) {
			t.Errorf("%s has headings of the levels %v, README.md %v", name, got.headings, english.headings)
		}
		if !slices.Equal(got.commands, english.commands) {
			t.Errorf("%s shows %q, README.md %q", name, got.commands, english.commands)
		}
		if !slices.Equal(got.links, english.links) {
			t.Errorf("%s links to %q, README.md to %q", name, got.links, english.links)
		}
		if got.rows != english.rows {
			t.Errorf("%s has %d rows of tables, README.md %d", name, got.rows, english.rows)
		}
	}
}

// outline is what a page has whatever language it is in.
type outline struct {
	headings []int    // their levels
	commands []string // lines of the blocks, without comments
	links    []string
	rows     int // of tables
}

func outlineOf(page string) (o outline) {
	inBlock := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			inBlock = !inBlock
			continue
		}
		if inBlock {
			command, _, _ := strings.Cut(line, " # ")
			o.commands = append(o.commands, strings.TrimSpace(command))
			continue
		}

		if level := len(line) - len(strings.TrimLeft(line, "#")); level > 0 {
			o.headings = append(o.headings, level)
		}
		if strings.HasPrefix(line, "|") {
			o.rows++
		}
		for _, link := range markdownLink.FindAllStringSubmatch(line, -1) {
			o.links = append(o.links, link[1])
		}
	}
	return o
}

// TestLinks looks for every file and heading of this repository that a page links to.
func TestLinks(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInAnchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`)

	for _, page := range tracked(t, "*.md") {
		// What stands between fences is no Markdown.
		for i, text := range fenceMark.Split(read(t, page), -1) {
			if i%2 == 1 {
				continue
			}
			for _, link := range markdownLink.FindAllStringSubmatch(text, -1) {
				if strings.Contains(link[1], "://") || strings.HasPrefix(link[1], "mailto:") {
					continue
				}

				name, anchor, _ := strings.Cut(link[1], "#")
				target := path.Join(path.Dir(page), name)
				if name == "" {
					target = page
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s links to %s, which is not there", page, link[1])
					continue
				}
				if anchor == "" || path.Ext(target) != ".md" {
					continue
				}
				var anchors []string
				for _, h := range heading.FindAllStringSubmatch(read(t, target), -1) {
					plain := notInAnchor.ReplaceAllString(strings.ToLower(h[1]), "")
					anchors = append(anchors, strings.ReplaceAll(plain, " ", "-"))
				}
				if !slices.Contains(anchors, anchor) {
					t.Errorf("%s links to %s: %s has no such heading", page, link[1], target)
				}
			}
		}
	}
}
