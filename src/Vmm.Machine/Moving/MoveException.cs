namespace Vmm.Machine.Moving;

/// <summary>A move cannot go on, or cannot begin; the message says what stands in its way.</summary>
public sealed class MoveException : Exception
{
    /// <summary>With what went wrong.</summary>
    public MoveException(string message) : base(message)
    {
    }

    /// <summary>With what went wrong, and why.</summary>
    public MoveException(string message, Exception cause) : base(message, cause)
    {
    }
}
