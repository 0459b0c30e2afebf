using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Vmm.Spec;

/// <summary>A YAML node with its place. Duplicate keys are kept so that they can be reported.</summary>
internal sealed class SpecNode(Mark mark)
{
    private const int MaxDepth = 16;
    private const int MaxNodes = 65536; // the largest sound spec has some twenty thousand

    public long Line { get; } = mark.Line;

    public long Column { get; } = mark.Column;

    /// <summary>Text of a scalar; null for the others.</summary>
    public string? Scalar { get; private init; }

    /// <summary>The scalar was written without quotes.</summary>
    public bool Plain { get; private init; }

    public List<(SpecNode Key, SpecNode Value)>? Map { get; private init; }

    public List<SpecNode>? List { get; private init; }

    /// <summary>Reads the one document of a stream from parser events; null when it is empty.</summary>
    /// <exception cref="YamlException">Not YAML, or YAML we refuse: aliases, several documents, deep nesting, more values than a spec
    /// has.</exception>
    internal static SpecNode? ReadDocument(TextReader text, CancellationToken cancellation = default)
    {
        Parser parser = new(text);
        int nodes = 0;
        parser.Consume<StreamStart>();
        if (!parser.TryConsume<DocumentStart>(out _))
        {
            return null;
        }

        SpecNode root = ReadNode(parser, 0, ref nodes, cancellation);
        parser.Consume<DocumentEnd>();
        ParsingEvent next = parser.Consume<ParsingEvent>();
        return next is DocumentStart
            ? throw new YamlException(next.Start, next.End, "a second document: a spec file describes one VM")
            : root;
    }

    private static SpecNode ReadNode(Parser parser, int depth, ref int nodes, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        ParsingEvent next = parser.Consume<ParsingEvent>();
        if (++nodes > MaxNodes)
        {
            throw new YamlException(next.Start, next.End, $"more than {MaxNodes} names and values: a spec has fewer");
        }

        if (depth > MaxDepth)
        {
            throw new YamlException(next.Start, next.End, "nested too deep");
        }

        switch (next)
        {
            case Scalar scalar:
                return new SpecNode(scalar.Start) { Scalar = scalar.Value, Plain = scalar.Style == ScalarStyle.Plain };
            case SequenceStart:
                List<SpecNode> list = [];
                while (!parser.TryConsume<SequenceEnd>(out _))
                {
                    list.Add(ReadNode(parser, depth + 1, ref nodes, cancellation));
                }

                return new SpecNode(next.Start) { List = list };
            case MappingStart:
                List<(SpecNode, SpecNode)> map = [];
                while (!parser.TryConsume<MappingEnd>(out _))
                {
                    SpecNode key = ReadNode(parser, depth + 1, ref nodes, cancellation);
                    map.Add((key, ReadNode(parser, depth + 1, ref nodes, cancellation)));
                }

                return new SpecNode(next.Start) { Map = map };
            default:
                throw new YamlException(next.Start, next.End, "anchors and aliases are not supported");
        }
    }
}
