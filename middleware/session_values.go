package middleware

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"reflect"

	"gatehouse/models"
)

const maxSessionData = 64 << 10 // bytes, of all values of a session

// mergeValues applies the changes from base to mine to theirs. models.ErrStale if both sides
// changed one key to different values.
func mergeValues(base []byte, mine map[any]any, theirs []byte) (map[any]any, error) {
	before, err := decodeValues(base)
	if err != nil {
		return nil, err
	}
	merged, err := decodeValues(theirs)
	if err != nil {
		return nil, err
	}
	encoded, err := encodeValues(mine) // to compare values that were decoded with values that were decoded
	if err != nil {
		return nil, err
	}
	if mine, err = decodeValues(encoded); err != nil {
		return nil, err
	}
	for _, key := range keysOf(before, mine) {
		was, wasThere := before[key]
		want, wanted := mine[key]
		is, isThere := merged[key]
		switch {
		case same(was, wasThere, want, wanted): // not changed by mine
		case same(is, isThere, want, wanted): // theirs has the same change
		case !same(is, isThere, was, wasThere):
			return nil, fmt.Errorf("value %v was changed by another request, too: %w", key, models.ErrStale)
		case wanted:
			merged[key] = want
		default:
			delete(merged, key)
		}
	}
	return merged, nil
}

func keysOf(a, b map[any]any) []any {
	var keys []any
	for key := range a {
		keys = append(keys, key)
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

func same(a any, aThere bool, b any, bThere bool) bool {
	return aThere == bThere && reflect.DeepEqual(a, b)
}

func encodeValues(values map[any]any) ([]byte, error) {
	if len(values) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(values); err != nil {
		return nil, fmt.Errorf("encode session values: %w", err)
	}
	if b.Len() > maxSessionData {
		return nil, fmt.Errorf("encode session values: %d bytes, more than %d", b.Len(), maxSessionData)
	}
	return b.Bytes(), nil
}

func decodeValues(data []byte) (map[any]any, error) {
	values := map[any]any{}
	if len(data) == 0 {
		return values, nil
	}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&values); err != nil {
		return nil, fmt.Errorf("decode session values: %w", err)
	}
	return values, nil
}
