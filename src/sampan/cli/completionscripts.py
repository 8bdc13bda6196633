"""``completion``: the scripts that make a shell ask ``__complete``. They need nothing but the shell."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import PROGRAM, Context, out

BASH = r"""# bash completion for @@. Load it with: source <(@@ completion bash)
_@@() {
    # Bash cuts words at "=" and ":"; put them together again as they stand on the line.
    local rest=${COMP_LINE:0:COMP_POINT} words=() last=-1 index word trimmed
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        trimmed=${rest#"${rest%%[![:space:]]*}"}
        if [[ $trimmed != "$rest" || $index -eq 0 || (-z $rest && -z $word) ]]; then
            last=$((last + 1))
            words[last]=
        fi
        ((index == COMP_CWORD)) && word=$trimmed
        words[last]+=$word
        rest=${trimmed:${#word}}
    done
    local program=${words[0]/#\~/$HOME} current=${words[last]} part=${COMP_WORDS[COMP_CWORD]}
    type -P -- "$program" >/dev/null || program=@@
    local answer=() directive candidate lead
    mapfile -t answer < <("$program" __completeNoDesc "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    ((${#answer[@]})) || return 0
    directive=${answer[${#answer[@]} - 1]#:}
    unset 'answer[${#answer[@]}-1]'
    [[ $current == -*=* ]] && current=${current#*=}
    [[ $part == [=:] ]] && part=
    lead=${current%"$part"} # what Bash holds to be words of their own
    [[ $lead == "$current" && -n $part ]] && lead=
    for candidate in "${answer[@]}"; do
        COMPREPLY+=("${candidate#"$lead"}")
    done
    ((directive & 2)) && compopt -o nospace 2>/dev/null
    if ((directive & 16)); then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$part")
    elif ((directive & 4 || ${#COMPREPLY[@]})); then
        compopt +o default 2>/dev/null
    fi
    return 0
}
complete -o default -F _@@ @@
"""

ZSH = r"""#compdef @@
# zsh completion for @@. Load it with: source <(@@ completion zsh)
_@@() {
    local -a answer candidates
    local directive line
    answer=("${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    directive=${answer[-1]#:}
    [[ $directive == <-> ]] || return 1
    for line in "${(@)answer[1,-2]}"; do
        [[ -n $line ]] && candidates+=("${${line%%$'\t'*}//:/\\:}${${(M)line#*$'\t'}:+:${line#*$'\t'}}")
    done
    [[ $PREFIX == -*=* ]] && compset -P '*='
    if ((directive & 16)); then
        _files -/
    elif ((${#candidates})); then
        if ((directive & 2)); then
            _describe -t @@ @@ candidates -S ''
        else
            _describe -t @@ @@ candidates
        fi
    elif ((!(directive & 4))); then
        _files
    fi
}
if [[ $funcstack[1] == _@@ ]]; then
    _@@ "$@"
else
    compdef _@@ @@
fi
"""

FISH = r"""# fish completion for @@. Load it with: @@ completion fish | source
function __@@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    set -l directive (string match -r '^:(\d+)$' -- $answer[-1])[2]
    test -n "$directive"; or return
    set -e answer[-1]
    set -l lead (string match -r '^-[^=]*=' -- $current)
    if test (math "bitand($directive, 16)") -ne 0
        __fish_complete_directories (string replace -- "$lead" '' $current)
    else if test (count $answer) -gt 0
        for line in $answer
            echo -- "$lead$line"
        end
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path (string replace -- "$lead" '' $current)
    end
end
complete -c @@ -e
complete -c @@ -f -a '(__@@_complete)'
"""


def _script(text: str) -> object:
    def act(_context: Context, _options: Options, _arguments: list[str]) -> int:
        out(text.replace("@@", PROGRAM).rstrip("\n"))
        return 0

    return act


COMMANDS: tuple[Command, ...] = tuple(
    Command(f"completion {shell}", "", f"Print the completion script for {shell}", _script(text), most=0)  # type: ignore[arg-type]
    for shell, text in (("bash", BASH), ("fish", FISH), ("zsh", ZSH))
)
