package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// orDash is a value in a table, or a dash if there is none.
func orDash(known bool, value any) string {
	if !known {
		return "-"
	}
	return fmt.Sprint(value)
}

func printJSON(value any) error { return writeJSON(os.Stdout, value) }

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}
