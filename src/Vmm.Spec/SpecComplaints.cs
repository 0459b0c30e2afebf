using System.Runtime.CompilerServices;

namespace Vmm.Spec;

/// <summary>Collects what is wrong with a spec.</summary>
internal sealed class SpecComplaints
{
    private const int LongestMessage = 600;

    /// <summary>What was found so far, at most <see cref="SpecException.MostProblems"/>.</summary>
    internal List<SpecProblem> Problems { get; } = [];

    /// <summary>How many were found more.</summary>
    internal int More { get; private set; }

    /// <summary>The problems, and as the last how many there are more.</summary>
    internal IReadOnlyList<SpecProblem> All => More == 0 ? Problems : [.. Problems, Rest(More)];

    /// <summary>Says that there are more problems than are told.</summary>
    internal static SpecProblem Rest(int more) => new("", $"{more} more problems are not shown");

    /// <summary>Notes a problem of the field <paramref name="path"/> unless <paramref name="holds"/>.</summary>
    internal void Require(bool holds, string path, string message)
    {
        if (!holds)
        {
            Add(path, message);
        }
    }

    /// <summary>The same with a text that is formatted only when it is needed.</summary>
    internal void Require(bool holds, string path, [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText message)
    {
        if (!holds)
        {
            Add(path, message.ToString());
        }
    }

    private void Add(string path, string message)
    {
        if (Problems.Count == SpecException.MostProblems)
        {
            More++;
            return;
        }

        Problems.Add(new SpecProblem(path, message.Length <= LongestMessage ? message : message[..LongestMessage] + "…"));
    }
}
