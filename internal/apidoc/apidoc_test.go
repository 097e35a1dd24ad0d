package apidoc

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"stampede/internal/problem"
)

//go:embed docs.html
var docsTemplate string

var update = flag.Bool("update", false, "write what is generated anew")

// TestGenerated holds what is served to what it is made of.
//
// It is made here and not by a server: with a template engine in it, the linker could leave nothing out, and the
// program would be twice as large.
func TestGenerated(t *testing.T) {
	document, err := joined("../../edge/openapi.yaml", "../../shop/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := renderDocs(document)
	if err != nil {
		t.Fatal(err)
	}
	for name, made := range map[string]struct{ want, got []byte }{
		"openapi.gen.yaml": {document, Contract}, "docs.gen.html": {page, Page},
	} {
		if *update {
			if err := os.WriteFile(name, made.want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(made.want, made.got) {
			t.Errorf("%s is out of date: make generate", name)
		}
	}
}

// joined is a document with the paths and components that further ones add to it. A path may be in several, with other
// methods in each.
func joined(first string, more ...string) ([]byte, error) {
	var document yaml.Node
	for _, name := range append([]string{first}, more...) {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var part yaml.Node
		if err := yaml.Unmarshal(text, &part); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if document.Kind == 0 {
			document = part
			continue
		}
		part.HeadComment = ""
		if err := add(document.Content[0], part.Content[0], 0); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}

	var out bytes.Buffer
	out.WriteString("# Made of edge/openapi.yaml and shop/openapi.yaml by make generate.\n")
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err := encoder.Encode(&document)
	return out.Bytes(), err
}

// joinDepth is down to where mappings are joined: paths, a path; components, a kind of them.
const joinDepth = 2

// add adds the members of a mapping to another. What is in both is joined as well, as far down as joinDepth.
func add(to, from *yaml.Node, depth int) error {
	for i := 0; i+1 < len(from.Content); i += 2 {
		name, value := from.Content[i], from.Content[i+1]
		there := valueOf(to, name.Value)
		switch {
		case len(there.Content) == 0:
			to.Content = append(to.Content, name, value)
		case depth == joinDepth:
			return fmt.Errorf("%s is there already", name.Value)
		default:
			if err := add(there, value, depth+1); err != nil {
				return fmt.Errorf("%s: %w", name.Value, err)
			}
		}
	}
	return nil
}

// What the page shows of an OpenAPI document. Its order is the document's.
type (
	contractDoc struct {
		Info struct{ Title, Summary, Description string }
		Tags []struct{ Name, Description string }

		Paths      pairs[pathDoc]
		Components struct {
			Schemas         pairs[schemaDoc]
			SecuritySchemes pairs[struct{ Description string }] `yaml:"securitySchemes"`
		}
	}
	pathDoc struct {
		Parameters []parameterDoc
		Operations []operationDoc `yaml:"-"`
	}
	operationDoc struct {
		Method, Path string `yaml:"-"`
		Tags         []string
		ID           string `yaml:"operationId"`
		Summary      string
		Description  string
		Security     []map[string][]string
		Parameters   []parameterDoc
		RequestBody  struct{ Content pairs[mediaDoc] } `yaml:"requestBody"`
		Responses    pairs[responseDoc]
	}
	parameterDoc struct {
		Name, In, Description string
		Required              bool
		Schema                schemaDoc
	}
	responseDoc struct {
		Description string
		Headers     pairs[parameterDoc]
		Content     pairs[mediaDoc]
	}
	mediaDoc struct {
		Schema   schemaDoc
		Example  yaml.Node
		Examples pairs[struct{ Value yaml.Node }]
	}
	schemaDoc struct {
		Ref          string `yaml:"$ref"`
		Type         any
		Format       string
		Description  string
		Pattern      string
		Properties   pairs[schemaDoc]
		Required     []string
		Items        *schemaDoc
		Enum         []string
		Const        any
		Minimum      *int64
		Maximum      *int64
		MinLength    *int64        `yaml:"minLength"`
		MaxLength    *int64        `yaml:"maxLength"`
		MaxItems     *int64        `yaml:"maxItems"`
		AllOf        []schemaDoc   `yaml:"allOf"`
		OneOf        []schemaDoc   `yaml:"oneOf"`
		Descriptions pairs[string] `yaml:"x-enumDescriptions"`
	}
)

// pairs is a mapping in the order in which it is written.
type pairs[T any] []pair[T]

type pair[T any] struct {
	Name  string
	Value T
}

func (p *pairs[T]) UnmarshalYAML(node *yaml.Node) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		entry := pair[T]{Name: node.Content[i].Value}
		if err := node.Content[i+1].Decode(&entry.Value); err != nil {
			return err
		}
		*p = append(*p, entry)
	}
	return nil
}

func (p *pathDoc) UnmarshalYAML(node *yaml.Node) error {
	type plain pathDoc
	if err := node.Decode((*plain)(p)); err != nil {
		return err
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if method := node.Content[i].Value; method != "parameters" {
			o := operationDoc{Method: strings.ToUpper(method)}
			if err := node.Content[i+1].Decode(&o); err != nil {
				return err
			}
			p.Operations = append(p.Operations, o)
		}
	}
	return nil
}

// inline puts what a reference refers to into its place, but for schemas, which the page links to.
func inline(node, root *yaml.Node) {
	for i := range node.Content {
		child := node.Content[i]
		if child.Kind == yaml.MappingNode && len(child.Content) == 2 && child.Content[0].Value == "$ref" {
			ref := strings.Split(child.Content[1].Value, "/") // #/components/kind/name
			if ref[2] != "schemas" {
				node.Content[i] = valueOf(valueOf(valueOf(root, ref[1]), ref[2]), ref[3])
			}
		}
		inline(node.Content[i], root)
	}
}

// valueOf returns the value of a mapping's valueOf; an empty one if there is none.
func valueOf(node *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1]
		}
	}
	return &yaml.Node{Kind: yaml.MappingNode}
}

// section is the operations of a tag.
type section struct {
	Name, Description string
	Operations        []operationDoc
}

// errorRow is a row of the table of codes.
type errorRow struct {
	Code, Description string
	Status            int
}

func renderDocs(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	inline(root.Content[0], root.Content[0])
	page := struct {
		contractDoc
		Style    template.CSS
		Sections []section
		Errors   []errorRow
	}{Style: template.CSS(style)} // our own file
	if err := root.Decode(&page.contractDoc); err != nil {
		return nil, err
	}
	for _, tag := range page.Tags {
		s := section{Name: tag.Name, Description: tag.Description}
		for _, path := range page.Paths {
			for _, o := range path.Value.Operations {
				if slices.Contains(o.Tags, tag.Name) {
					o.Path = path.Name
					o.Parameters = slices.Concat(path.Value.Parameters, o.Parameters)
					s.Operations = append(s.Operations, o)
				}
			}
		}
		page.Sections = append(page.Sections, s)
	}
	for _, s := range page.Components.Schemas {
		for _, property := range s.Value.Properties {
			for _, c := range property.Value.Descriptions {
				page.Errors = append(page.Errors, errorRow{c.Name, c.Value, problem.Code(c.Name).Status()})
			}
		}
	}
	t, err := template.New("docs").Funcs(template.FuncMap{
		"blocks": blocks, "line": line, "json": indentJSON, "lower": strings.ToLower,
	}).Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, page)
	return out.Bytes(), err
}

// NeedsToken reports whether an operation is for users only, and MayUseToken whether a token changes its answer.
func (o operationDoc) NeedsToken() bool  { return len(o.Security) == 1 }
func (o operationDoc) MayUseToken() bool { return len(o.Security) > 1 }

// OwnHeaders are the headers of an answer but for those of the rate limits, which all answers have.
func (r responseDoc) OwnHeaders() pairs[parameterDoc] {
	return slices.DeleteFunc(slices.Clone(r.Headers), func(h pair[parameterDoc]) bool {
		return strings.HasPrefix(h.Name, "RateLimit")
	})
}

// Codes are the problem codes that an answer may have.
func (r responseDoc) Codes() []string {
	var codes []string
	for _, media := range r.Content {
		codes = append(codes, media.Value.Schema.codes()...)
	}
	return codes
}

func (s schemaDoc) codes() []string {
	var codes []string
	for _, property := range s.Properties {
		if property.Name == "code" {
			codes = append(codes, property.Value.Enum...)
		}
	}
	for _, part := range slices.Concat(s.AllOf, s.OneOf) {
		codes = append(codes, part.codes()...)
	}
	return codes
}

// Name is the name of the schema that is referred to, or empty.
func (s schemaDoc) Name() string { return strings.TrimPrefix(s.Ref, "#/components/schemas/") }

// Needs reports whether an object has to have a property.
func (s schemaDoc) Needs(property string) bool { return slices.Contains(s.Required, property) }

// Bounds says in words what values are possible, but for a reference.
func (s schemaDoc) Bounds() string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch t := s.Type.(type) {
	case string:
		add("%s", t)
	case []any:
		add("%v or %v", t...)
	}
	if s.Format != "" {
		add("%s", s.Format)
	}
	span := func(least, most *int64, unit string) {
		switch {
		case least != nil && most != nil:
			add("%d to %d%s", *least, *most, unit)
		case least != nil:
			add("at least %d%s", *least, unit)
		case most != nil:
			add("at most %d%s", *most, unit)
		}
	}
	span(s.Minimum, s.Maximum, "")
	span(s.MinLength, s.MaxLength, " characters")
	span(nil, s.MaxItems, " items")
	if s.Pattern != "" {
		add("%s", s.Pattern)
	}
	if s.Const != nil {
		add("%q", s.Const)
	}
	if len(s.Enum) > 0 && len(s.Descriptions) == 0 {
		add("%s", strings.Join(s.Enum, " | "))
	}
	return strings.Join(words, ", ")
}

// blocks shows what the descriptions use of Markdown: paragraphs, lists, code and bold words.
func blocks(text string) template.HTML {
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if items, ok := strings.CutPrefix(block, "- "); ok {
			out.WriteString("<ul>")
			for item := range strings.SplitSeq(items, "\n- ") {
				out.WriteString("<li>" + string(line(item)))
			}
			out.WriteString("</ul>")
		} else if block != "" {
			out.WriteString("<p>" + string(line(block)))
		}
	}
	return template.HTML(out.String()) // all text went through line
}

var (
	codeWords = regexp.MustCompile("`([^`]+)`")
	boldWords = regexp.MustCompile(`\*\*([^*]+)\*\*`)
)

// line is a piece of text with code and bold words.
func line(text string) template.HTML {
	escaped := codeWords.ReplaceAllString(template.HTMLEscapeString(text), "<code>$1</code>")
	return template.HTML(boldWords.ReplaceAllString(escaped, "<strong>$1</strong>"))
}

// indentJSON shows an example as JSON, its members in the order in which they are written.
func indentJSON(node yaml.Node) (string, error) {
	var compact, out bytes.Buffer
	if err := writeJSON(&compact, &node); err != nil {
		return "", err
	}
	err := json.Indent(&out, compact.Bytes(), "", "  ")
	return out.String(), err
}

func writeJSON(out *bytes.Buffer, node *yaml.Node) error {
	var value any
	opening, closing := byte('{'), byte('}')
	switch node.Kind {
	case yaml.SequenceNode:
		opening, closing = '[', ']'
	case yaml.ScalarNode:
		if err := node.Decode(&value); err != nil {
			return err
		}
		encoded, err := json.Marshal(value)
		out.Write(encoded)
		return err
	}
	out.WriteByte(opening)
	for i, child := range node.Content {
		switch {
		case i > 0 && node.Kind == yaml.MappingNode && i%2 == 1:
			out.WriteByte(':')
		case i > 0:
			out.WriteByte(',')
		}
		if err := writeJSON(out, child); err != nil {
			return err
		}
	}
	out.WriteByte(closing)
	return nil
}
