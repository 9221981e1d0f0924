package handlers

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

// conflict is a text that could not be saved because another one was saved meanwhile.
type conflict struct {
	process models.Process // as it is now
	lock    string         // under which the editor decides
	merged  merge.Merged
	began   int64     // the version from which the editor began
	kept    bool      // the text is kept as a draft
	draft   time.Time // as that of a text
	other   time.Time // as that of a text
	again   bool      // another save came in while the editor decided
	// choices and edited are what the editor decided already; nil at first.
	choices, edited map[string]string
	wrong           templates.FieldErrors
}

// showConflict lets the editor decide about each field that both sides changed.
func (h *Handlers) showConflict(c *gin.Context, status int, of conflict) error {
	process := of.process
	view := templates.Conflict{
		Frame: h.frame(c, "Two versions of “"+process.Title+"”"), ID: process.ID, Heading: process.Title, LockID: of.lock, DraftKnown: of.draft, Other: of.other,
		Statuses: models.Statuses[:], Began: of.began, Base: process.Version, By: nameOf(process.UpdatedBy), At: process.UpdatedAt,
		Own: process.UpdatedBy.ID == signedIn(c).User.ID, Again: of.again, BaseUnknown: of.merged.BaseUnknown, Kept: of.kept, Errors: of.wrong,
	}
	if status == http.StatusConflict {
		view.RequestID = middleware.RequestIDFrom(c)
	}
	if status == http.StatusOK {
		view.Notices = notices(c)
	}
	for _, field := range of.merged.Fields {
		view.Fields = append(view.Fields, of.shown(field))
	}
	html, err := h.Pages.Conflict(view)
	return h.page(c, status, html, err)
}

func (of conflict) shown(field merge.Field) templates.ConflictField {
	shown := templates.ConflictField{
		Name: field.Name, Base: field.Base, Mine: field.Mine, Theirs: field.Theirs,
		Choice: of.choices[field.Name], Edited: field.Mine,
	}
	switch field.Changed {
	case merge.Mine:
		shown.Changed, shown.Choice = "mine", "mine"
	case merge.Theirs:
		shown.Changed, shown.Choice = "theirs", "theirs"
	case merge.Neither:
		shown.Choice = "theirs"
	case merge.Both:
		shown.Changed = "both"
		if together, ok := merge.Together(field.Base, field.Mine, field.Theirs); ok && field.Name == merge.Description && !of.merged.BaseUnknown {
			shown.Edited = together
		}
	}
	if edited, ok := of.edited[field.Name]; ok {
		shown.Edited = edited
	}
	if field.Name != merge.Description {
		return shown
	}
	switch field.Changed {
	case merge.Mine:
		shown.Lines = changedLines(field.Base, field.Mine)
	case merge.Theirs:
		shown.Lines = changedLines(field.Base, field.Theirs)
	case merge.Both:
		shown.Lines = changedLines(field.Theirs, field.Mine)
		shown.LinesMine, shown.LinesTheirs = changedLines(field.Base, field.Mine), changedLines(field.Base, field.Theirs)
		shown.Cut = len(shown.Lines) > changeLines
	}
	return shown
}

// conflictForm reads the form of a conflict, and further fields.
func conflictForm(c *gin.Context, more ...string) (map[string]string, error) {
	more = append(more, "lock", "base", "began")
	for _, field := range []string{merge.Title, merge.Status, merge.Description} {
		more = append(more, field+".mine", field+".choice", field+".edited", field+".proposed")
	}
	return formOf(c, maxBody, more...)
}

// decided is what an editor decided about the fields of a conflict.
type decided struct {
	began   int64     // the version from which the editor began
	base    int64     // the version of theirs
	draft   time.Time // as that of a text
	mine    models.ProcessFields
	result  models.ProcessFields
	choices map[string]string
	edited  map[string]string
	wrote   map[string]bool // into the field, beside what the page had proposed there
}

// decidedOf reads the decisions of a form; theirs is the version that they are about.
func decidedOf(c *gin.Context, form map[string]string, theirs models.Process) decided {
	d := decided{draft: draftKnown(c), choices: map[string]string{}, edited: map[string]string{}, wrote: map[string]bool{}}
	d.began, _ = strconv.ParseInt(form["began"], 10, 64)
	d.base, _ = strconv.ParseInt(form["base"], 10, 64)
	unix := func(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") } // browsers send others
	pick := func(field, other string) (mine, result string) {
		mine = form[field+".mine"]
		edited, ok := form[field+".edited"]
		if ok {
			d.edited[field] = edited
		}
		proposed, known := form[field+".proposed"]
		d.wrote[field] = ok && known && unix(edited) != unix(proposed)
		choice := form[field+".choice"]
		if choice == "" && d.wrote[field] {
			choice = "edited"
		}
		switch choice {
		case "mine":
			d.choices[field], result = choice, mine
		case "theirs":
			d.choices[field], result = choice, other
		case "edited":
			d.choices[field], result = choice, edited
		default:
			result = mine
		}
		return mine, result
	}
	d.mine.Title, d.result.Title = pick(merge.Title, theirs.Title)
	d.mine.Status, d.result.Status = pick(merge.Status, theirs.Status)
	d.mine.Description, d.result.Description = pick(merge.Description, theirs.Description)
	d.mine, d.result = merge.Clean(d.mine), merge.Clean(d.result)
	return d
}

func (d decided) text() text { return text{ProcessFields: d.result, base: d.base, draft: d.draft} }

// resolveForm saves what the editor decided. If a further save came in meanwhile, the editor
// decides again, between that and what was decided.
func (h *Handlers) resolveForm(c *gin.Context) error {
	form, err := conflictForm(c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	theirs, err := h.decidedAbout(c, id, form["base"])
	if err != nil {
		return err
	}
	d := decidedOf(c, form, theirs)
	wrong := templates.FieldErrors{}
	for _, field := range []string{merge.Title, merge.Status, merge.Description} {
		if d.choices[field] == "" {
			wrong[field] = "Decide about this one, too."
		} else if d.wrote[field] && d.choices[field] != "edited" {
			wrong[field] = "You wrote something here, too: choose once more."
			if field == merge.Status {
				wrong[field] = "You chose something else here, too: choose once more."
			}
		}
	}
	lock, unfit := form["lock"], wrongFields(d.result)
	if len(wrong) == 0 && unfit != nil { // also of a field that there is nothing to decide about
		return h.showText(c, id, lock, d.text(), unfit)
	}
	for field, what := range unfit {
		wrong[field] = what
	}
	if len(wrong) > 0 {
		return h.askAgain(c, theirs, lock, d, wrong)
	}
	return h.save(c, id, lock, d.text(), saving{again: true})
}

// decidedAbout is the version that a decision is about.
func (h *Handlers) decidedAbout(c *gin.Context, id, base string) (models.Process, error) {
	version, err := strconv.ParseInt(base, 10, 64)
	if err != nil || version < 1 {
		return models.Process{}, models.Invalid("base", "must be the version that was decided about")
	}
	return h.Processes.Version(c.Request.Context(), id, version)
}

// askAgain shows the conflict again, with what was decided and what is wrong with it.
func (h *Handlers) askAgain(c *gin.Context, theirs models.Process, lock string, d decided, wrong templates.FieldErrors) error {
	merged, err := h.merge(c.Request.Context(), theirs, text{ProcessFields: d.mine, base: d.began, draft: d.draft})
	if err != nil {
		return err
	}
	return h.showConflict(c, http.StatusUnprocessableEntity, conflict{
		process: theirs, lock: lock, merged: merged, began: d.began, draft: d.draft, choices: d.choices, edited: d.edited, wrong: wrong,
	})
}

// nameOf is a user as the pages name users.
func nameOf(user models.UserRef) string {
	if user.Email == "" {
		return "user " + user.ID
	}
	return user.Email
}
