using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Saved pages of a model: a number each, some 0.</summary>
internal sealed class ModelSavedPages : ISavedPages
{
    private readonly ulong[] _content;

    /// <param name="expected">Learns what they hold.</param>
    /// <param name="random">Says it.</param>
    internal ModelSavedPages(ulong[] expected, Random random)
    {
        for (int page = 0; page < expected.Length; page++)
        {
            expected[page] = random.Next(3) == 0 ? 0 : (ulong)page + 500;
        }

        _content = [.. expected];
    }

    public bool HasContent(ulong chunk) => true;

    public void Read(ulong chunk, Span<byte> content)
    {
        content.Clear();
        for (int page = 0; page < _content.Length; page++)
        {
            BitConverter.TryWriteBytes(content[(page * 4096)..], _content[page]);
        }
    }

    public void Dispose()
    {
    }
}
