namespace Vmm.Devices.VhostUser;

/// <summary>A back end that serves rings for us is gone, does not answer, or answers what it may not.</summary>
public sealed class VhostUserException : Exception
{
    /// <summary>Says what.</summary>
    public VhostUserException(string message) : base(message) { }

    /// <summary>Says what, and what it came of.</summary>
    public VhostUserException(string message, Exception cause) : base(message, cause) { }
}
