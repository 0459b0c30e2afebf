namespace Vmm.Spec;

/// <summary>One thing wrong with a spec.</summary>
/// <param name="Path">The field, e.g. <c>disks[0].queueSize</c>; empty for the whole document.</param>
/// <param name="Message">What is wrong and what would be right.</param>
/// <param name="File">The spec file; null when the spec came from the command line.</param>
/// <param name="Line">Line in the file from 1, 0 when unknown.</param>
/// <param name="Column">Column in the line from 1, 0 when unknown.</param>
public sealed record SpecProblem(string Path, string Message, string? File = null, long Line = 0, long Column = 0)
{
    /// <summary><c>web1.yaml:12:5: disks[0].queueSize: …</c></summary>
    public override string ToString()
    {
        string place = File is null ? "" : Line > 0 ? $"{File}:{Line}:{Column}: " : $"{File}: ";
        return Path.Length > 0 ? $"{place}{Path}: {Message}" : place + Message;
    }
}

/// <summary>A spec was refused; carries every problem found.</summary>
public sealed class SpecException : Exception
{
    /// <summary>Most problems that are told one by one; the last entry counts the others.</summary>
    public const int MostProblems = 100;

    /// <summary>Creates the error from at least one problem.</summary>
    public SpecException(IReadOnlyList<SpecProblem> problems) : base(string.Join('\n', problems)) => Problems = problems;

    /// <summary>
    /// The problems, in document order where a position is known: the first <see cref="MostProblems"/>, and how many there are more.
    /// </summary>
    public IReadOnlyList<SpecProblem> Problems { get; }
}
