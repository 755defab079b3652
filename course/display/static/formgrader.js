// Changes nbgrader's page of a submission, whose scripts come before this one: a score that the server refuses is kept
// in its field, with the reason below, where nbgrader would save the maximum instead.

// nbgrader's script waits for MathJax; here formulas are drawn without it.
var MathJax = {Hub: {Startup: {signal: {Interest: function (listener) {
    $(function () { listener("End"); });
}}}}};

// The handlers that nbgrader writes into the elements.
$(function () {
    $("span.glyphicon.name-hidden").on("click", function () { toggle_name(true); });
    $("span.glyphicon.name-shown").on("click", function () { toggle_name(false); });
});

GradeUI.prototype.save = function () {
    var fields = [this.$score, this.$extra_credit];
    if (_.some(fields, function (field) { return field[0].validity.badInput; })) {
        this.showRefusal("What was typed is not a number.");
        return;
    }
    var typed = _.map(fields, function (field) { return field.val() === "" ? null : Number(field.val()); });
    var view = this;
    this.model.save({manual_score: typed[0], extra_credit: typed[1]}, {
        wait: true,
        error: function (model, response) {
            var reason = response.responseJSON && response.responseJSON.message;
            view.showRefusal(reason || "The score was not saved: the server answered " + (response.status || "nothing") + ".");
        }
    });
};

GradeUI.prototype.showRefusal = function (reason) {
    this.clearRefusal();
    this.$glyph.stop(true).hide();
    var line = $("<div/>").addClass("score-refused").attr("role", "alert").text(reason);
    line.insertAfter(this.$el.find(".panel-heading").first());
};

GradeUI.prototype.clearRefusal = function () {
    this.$el.find(".score-refused").remove();
};

var animateSaved = GradeUI.prototype.animateSaved;
GradeUI.prototype.animateSaved = function () {
    this.clearRefusal();
    animateSaved.call(this);
};
