namespace Vmm.Machine.Run;

/// <summary>What a guest tells of a panic of its kernel.</summary>
public sealed class GuestPanicEventArgs(bool panicked) : EventArgs
{
    /// <summary>True: it panicked, and its spec says what follows; false: its crash kernel takes over, and it goes on.</summary>
    public bool Panicked { get; } = panicked;
}
