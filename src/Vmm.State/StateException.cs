namespace Vmm.State;

/// <summary>
/// A saved state is not one, is damaged, or does not fit this machine. The message names the unit and what is wrong with it.
/// </summary>
public sealed class StateException : Exception
{
    /// <param name="message">What is wrong, and where.</param>
    /// <param name="inner">Where it was found.</param>
    public StateException(string message, Exception? inner = null) : base(message, inner)
    {
    }
}

/// <summary>What one unit failed with.</summary>
/// <param name="Unit">The unit.</param>
/// <param name="Message">One sentence.</param>
public readonly record struct UnitError(PartId Unit, string Message);

/// <summary>An operation on all units failed for some of them; it went on with the others as far as that made sense.</summary>
public sealed class UnitsException : Exception
{
    /// <param name="operation">The verb, such as "quiesce".</param>
    /// <param name="errors">What failed, in order; at least one.</param>
    public UnitsException(string operation, IReadOnlyList<UnitError> errors)
        : base($"{operation}: {string.Join("; ", errors.Select(e => $"{e.Unit}: {e.Message}"))}") => Errors = errors;

    /// <summary>What failed, one entry a unit.</summary>
    public IReadOnlyList<UnitError> Errors { get; }
}
