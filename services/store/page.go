package store

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode"

	"gatehouse/models"
)

const maxLimit = 1000

// pageLimit is the number of items to return, at most 1000.
func pageLimit(p models.Page) int {
	if p.Limit <= 0 {
		return models.DefaultLimit
	}
	return min(p.Limit, maxLimit)
}

// keyed is an item with what the list is ordered by.
type keyed[T any] struct {
	item T
	keys []int64
}

// page cuts what was read (one more than the limit, if there is more) to a page.
func page[T any](list string, rows []keyed[T], limit int) models.List[T] {
	result := models.List[T]{Items: make([]T, 0, min(len(rows), limit))}
	for i, row := range rows {
		if i == limit {
			next := encodeCursor(list, rows[i-1].keys)
			result.NextCursor = &next
			break
		}
		result.Items = append(result.Items, row.item)
	}
	return result
}

// A cursor names its list and the keys of the last item of the page before.

func encodeCursor(list string, keys []int64) string {
	text := list
	for _, key := range keys {
		text += ":" + strconv.FormatInt(key, 10)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// decodeCursor returns the keys in a cursor, or start for the first page.
// models.ErrBadCursor if it is not a cursor of this list.
func decodeCursor(list, cursor string, start ...int64) ([]int64, error) {
	if cursor == "" {
		return start, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, models.ErrBadCursor
	}
	parts := strings.Split(string(text), ":")
	if len(parts) != len(start)+1 {
		return nil, models.ErrBadCursor
	}
	keys := make([]int64, len(start))
	for i := range keys {
		if keys[i], err = strconv.ParseInt(parts[i+1], 10, 64); err != nil {
			return nil, models.ErrBadCursor
		}
	}
	if encodeCursor(list, keys) != cursor {
		return nil, models.ErrBadCursor
	}
	return keys, nil
}

// numbered are n parameters of a statement: $1, $2 and so on.
func numbered(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(names, ", ")
}

// fold makes texts that differ only in case equal, in any script.
func fold(text string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, text)
}

// containing is the LIKE pattern, with ESCAPE '\', of texts that contain text.
func containing(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}
