package store

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"gatehouse/models"
)

// byTitle names the list that is ordered by title in its cursors.
const byTitle = "processes by title"

// processesByTitle is Processes in the order of the titles, in any case. A cursor has the title and
// the id of the last process of the page before.
func (s *Store) processesByTitle(ctx context.Context, filter models.ProcessFilter, pattern string, p models.Page) (models.List[models.Process], error) {
	title, id, err := decodeTitleCursor(p.Cursor)
	if err != nil {
		return models.List[models.Process]{}, err
	}
	limit := pageLimit(p)
	if utf8.RuneCountInString(filter.Query) > models.MaxTitle { // no title is longer
		return page[models.Process](byTitle, nil, limit), nil
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	type titled struct {
		models.Process
		folded string
	}
	rows, err := collect(ctx, s.read, func(row scanner) (titled, error) {
		var folded string
		process, err := scanProcess(row, &folded)
		return titled{process, folded}, err
	}, `SELECT `+processColumns+`, title_folded FROM processes
		WHERE ($1 = '' OR status = $1) AND ($2 = '' OR title_folded LIKE $2 ESCAPE '\')
		  AND (title_folded, id) > ($3, $4)
		ORDER BY title_folded, id LIMIT $5`,
		clean(filter.Status), pattern, title, id, limit+1)
	if err != nil {
		return models.List[models.Process]{}, err
	}
	list := models.List[models.Process]{Items: make([]models.Process, 0, min(len(rows), limit))}
	for i, row := range rows {
		if i == limit {
			last := rows[i-1]
			next := encodeTitleCursor(last.folded, last.ID)
			list.NextCursor = &next
			break
		}
		list.Items = append(list.Items, row.Process)
	}
	return list, nil
}

func encodeTitleCursor(folded, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(byTitle + ":" + id + ":" + folded))
}

// decodeTitleCursor returns what comes before the page, or before all for the first page.
// models.ErrBadCursor if it is not a cursor of this list.
func decodeTitleCursor(cursor string) (folded string, id int64, err error) {
	if cursor == "" {
		return "", 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return "", 0, models.ErrBadCursor
	}
	rest, ok := strings.CutPrefix(string(text), byTitle+":")
	number, folded, found := strings.Cut(rest, ":")
	id, err = strconv.ParseInt(number, 10, 64)
	if !ok || !found || err != nil || clean(folded) != folded || encodeTitleCursor(folded, formatID(id)) != cursor {
		return "", 0, models.ErrBadCursor
	}
	return folded, id, nil
}
