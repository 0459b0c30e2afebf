using System.Text;

namespace Vmm.Interop;

/// <summary>
/// Standard error for a program that goes on whatever becomes of its messages: what cannot be written (closed, a full device, a broken
/// pipe) is dropped. Opened at the first message.
/// </summary>
public sealed class LossyWriter : TextWriter
{
    private readonly Lazy<TextWriter> _inner;

    private LossyWriter(TextWriter? inner) => _inner =
        new Lazy<TextWriter>(() => inner ?? new StreamWriter(Console.OpenStandardError(), new UTF8Encoding(false)) { AutoFlush = true });

    /// <inheritdoc/>
    public override Encoding Encoding => Encoding.UTF8;

    /// <summary>Makes this process's <see cref="Console.Error"/> such a writer.</summary>
    public static void UseForErrors() => Console.SetError(new LossyWriter(null));

    /// <summary>Puts one in front of a writer.</summary>
    public static TextWriter For(TextWriter inner) => new LossyWriter(inner);

    /// <inheritdoc/>
    public override void Write(char value) => Write([value]);

    /// <inheritdoc/>
    public override void Write(string? value) => Write(value.AsSpan());

    /// <inheritdoc/>
    public override void WriteLine(string? value) => Write((value + "\n").AsSpan());

    /// <inheritdoc/>
    public override void Write(char[] buffer, int index, int count) => Write(buffer.AsSpan(index, count));

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<char> buffer)
    {
        try
        {
            _inner.Value.Write(buffer);
            _inner.Value.Flush();
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            // Nobody can be told.
        }
    }
}
