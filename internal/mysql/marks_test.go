package mysql

import "testing"

func TestMarks(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	want := func(name, want string) {
		t.Helper()
		if got, err := db.Mark(t.Context(), name); got != want || err != nil {
			t.Errorf("%s is %q, error %v, want %q", name, got, err, want)
		}
	}
	want("servers", "")
	for _, value := range []string{"a", "b c"} {
		if err := db.SetMark(t.Context(), "servers", value); err != nil {
			t.Fatal(err)
		}
		want("servers", value)
	}
	want("others", "")
}
