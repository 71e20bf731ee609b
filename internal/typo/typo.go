// Package typo finds the word that a mistyped one stands for, to ask "did you
// mean?".
package typo

// Closest returns the name that a mistyped one probably stands for: the first of
// those that differ in the fewest bytes, two at most, and in one of three. It is
// "" when there is none.
func Closest(typed string, names []string) string {
	best, distance := "", 1+min(2, len(typed)/3)
	for _, name := range names {
		if len(name)-len(typed) >= distance || len(typed)-len(name) >= distance {
			continue // so that a long word costs nothing
		}
		if d := levenshtein(typed, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// levenshtein is how many bytes have to be added, removed or replaced to make b
// of a.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
