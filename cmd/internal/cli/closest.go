package cli

// Closest returns the name that a mistyped one probably stands for, the first of
// those that differ in the fewest letters; "" when all differ in more than two.
func Closest(typed string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if d := EditDistance(typed, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// EditDistance is that of Levenshtein, in bytes.
func EditDistance(a, b string) int {
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
