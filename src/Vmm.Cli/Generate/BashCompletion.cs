using System.CommandLine;
using System.Text;

namespace Vmm.Cli.Generate;

/// <summary>
/// A bash completion from the command definitions: the words are in the script, only names of VMs, disks, jobs and tokens are asked for,
/// through the hidden <c>vmmctl complete NOUN</c>, which gives up after a moment.
/// </summary>
internal static class BashCompletion
{
    internal static string Write(Command root)
    {
        string[] global = [.. CommandShape.Options(root)
            .Where(option => option.Recursive && CommandShape.TakesValue(option))
            .SelectMany(CommandShape.Names)];
        StringBuilder script = new();
        AddHelpers(script, global);
        AddValues(script, root);
        AddWordsBefore(script, root, global);
        AddWordsAtCursor(script, root);
        return script.ToString();
    }

    /// <summary>The names of the options of the whole program, and the functions that offer words, files and names of objects.</summary>
    private static void AddHelpers(StringBuilder script, string[] global) =>
        script.Append("# bash completion for vmmctl; made by: vmmctl generate completion bash\n\n")
            .Append("_vmmctl_global=\"")
            .AppendJoin(' ', global)
            .Append("\"\n")
            .Append("""
            _vmmctl_files() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -"$1" -- "$cur"); }
            _vmmctl_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
            _vmmctl_objects() { _vmmctl_words "$(_vmmctl_ask "$1" 2>/dev/null)"; }

            # The daemon is asked where the command line says, with the program that the command line names.
            _vmmctl_ask() { timeout 2 "${COMP_WORDS[0]}" "${globals[@]}" complete "$1"; }


            """);

    /// <summary>The function that offers the values of an option.</summary>
    private static void AddValues(StringBuilder script, Command root)
    {
        script.Append("""
            # What follows an option; fails when the option takes no value.
            _vmmctl_value() {
                case "$command $1" in

            """);
        foreach ((string path, Command command, string noun) in Walk(root))
        {
            foreach (Option option in CommandShape.Options(command).Where(CommandShape.TakesValue))
            {
                // The options of the whole program stand behind every command.
                string prefix = ReferenceEquals(command, root) ? "*" : Quote(path);
                string names = string.Join(" | ", CommandShape.Names(option).Select(name => $"{prefix}\\ {name}"));
                script.Append("        ").Append(names).Append(") ").Append(Action(CommandShape.Values(option, noun))).Append(" ;;\n");
            }
        }

        script.Append("""
                    *) return 1 ;;
                esac
            }


            """);
    }

    /// <summary>The first half of the completion itself: which command the words before the cursor name, and its options of the whole
    /// program.</summary>
    private static void AddWordsBefore(StringBuilder script, Command root, string[] global)
    {
        script.Append("""
            _vmmctl() {
                local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command="" at=1 arguments=0 word
                local -a globals=()
                COMPREPLY=()
                while [ "$at" -lt "$COMP_CWORD" ]; do
                    word=${COMP_WORDS[at]}
                    case $word in

            """);
        script.Append("            ").AppendJoin(" | ", global).Append(")\n");
        script.Append("""
                            # A URL is several words to readline, which breaks at colons.
                            at=$((at + 1))
                            [ "${COMP_WORDS[at]}" != "=" ] || at=$((at + 1))
                            globals+=("$word" "${COMP_WORDS[at]}")
                            while [ $((at + 2)) -le "$COMP_CWORD" ] && [ "${COMP_WORDS[at + 1]}" = ":" ]; do
                                globals[-1]+=":${COMP_WORDS[at + 2]}"
                                at=$((at + 2))
                            done
                            ;;
                        -*) if _vmmctl_value "$word"; then at=$((at + 1)); fi; COMPREPLY=() ;;
                        *)
                            case "$command" in

            """);
        foreach ((string path, Command command, _) in Walk(root).Where(step => CommandShape.Visible(step.Command).Any()))
        {
            script.Append("                    ").Append(Quote(path)).Append(") command=\"${command:+$command }$word\" ;;\n");
        }

        script.Append("""
                                *) arguments=$((arguments + 1)) ;;
                            esac
                            ;;
                    esac
                    at=$((at + 1))
                done

            """);
    }

    /// <summary>The second half: what that command takes at the cursor.</summary>
    private static void AddWordsAtCursor(StringBuilder script, Command root)
    {
        script.Append("""
                case $prev in -*) _vmmctl_value "$prev" && return ;; esac
                case "$command" in

            """);
        foreach ((string path, Command command, string noun) in Walk(root))
        {
            script.Append("        ").Append(Quote(path)).Append(") ").Append(Words(root, command, noun)).Append(" ;;\n");
        }

        script.Append("""
                esac
            }

            complete -F _vmmctl vmmctl

            """);
    }

    /// <summary>What follows a command: an option after a hyphen, else the commands below or the argument.</summary>
    private static string Words(Command root, Command command, string noun)
    {
        string names = string.Join(' ', CommandShape.Options(command)
            .Where(option => !option.Recursive || !CommandShape.TakesValue(option))
            .SelectMany(CommandShape.Names)
            .Distinct(StringComparer.Ordinal));
        names += ReferenceEquals(command, root) ? " $_vmmctl_global" : CommandTree.AsksDaemon(noun) ? " --help $_vmmctl_global" : " --help";
        string children = string.Join(' ', CommandShape.Visible(command).Select(child => child.Name));
        string rest = children.Length > 0 ? $"_vmmctl_words \"{children}\""
            : command.Arguments.Count == 0 ? ":"
            : $"[ \"$arguments\" -ge {command.Arguments.Count} ] || {Action(CommandShape.Values(command.Arguments[0], noun))}";
        return $"case $cur in -*) _vmmctl_words \"{names}\" ;; *) {rest} ;; esac";
    }

    private static string Action((CompletionKind Kind, string Words) values) => values.Kind switch
    {
        CompletionKind.Words => $"_vmmctl_words \"{values.Words}\"",
        CompletionKind.File => "_vmmctl_files f",
        CompletionKind.Folder => "_vmmctl_files d",
        CompletionKind.Objects => "_vmmctl_objects " + values.Words,
        _ => ":",
    };

    private static string Quote(string path) => path.Length == 0 ? "\"\"" : path.Replace(" ", "\\ ", StringComparison.Ordinal);

    /// <summary>The tree from above, each with its path and noun; hidden commands stay hidden.</summary>
    private static IEnumerable<(string Path, Command Command, string Noun)> Walk(Command command, string path = "", string noun = "")
    {
        yield return (path, command, noun);
        foreach (Command child in CommandShape.Visible(command))
        {
            foreach ((string, Command, string) below in Walk(
                child, path.Length == 0 ? child.Name : path + " " + child.Name, noun.Length == 0 ? child.Name : noun))
            {
                yield return below;
            }
        }
    }
}
